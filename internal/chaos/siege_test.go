package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/chaos/wire"
	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
)

// siege is two gateways on a PostgreSQL of their own, the second by way of a
// wire that can be cut, with accounts and callers.
type siege struct {
	till     *Till
	server   *pgtest.Server
	wire     *wire.Wire
	gateways []*Gateway
	accounts []Credential
}

// siegeLease is short, so that what outlives it is seen soon.
func siegeLease() time.Duration { return either(15*time.Second, 6*time.Second) }

func besiege(t *testing.T, accounts int) *siege {
	t.Helper()
	s := &siege{till: meet(t), server: pgtest.New(t, true)}
	settings := s.till.Settings(paced(t, 60).URL)
	settings.Lease, settings.Renew = siegeLease().String(), (siegeLease() / 3).String()
	database := s.server.Fresh(t)
	settings.Store = database
	first := site.Gateway(t, settings)
	s.wire, settings.Store = PostgresWire(t, database)
	s.gateways = []*Gateway{first, site.Gateway(t, settings)}
	s.accounts = buyMany(t, s.till, first, accounts, 1_000_000)
	return s
}

// load has patient callers at every gateway and account: short and long streams,
// unary answers, calls at a fixed price; and others that hang up after a while.
// Without a database the patient ones wait for their charge, so that the others
// are the ones that ask for more.
func (s *siege) load() (patient, hasty *Traffic) {
	p := Plan{
		Gateways: s.gateways, Accounts: s.accounts, Callers: 16,
		Asks: []string{Chat("demo", 24, true), Chat("flat", 8, false), Chat("demo", 240, true), Chat("demo", 40, false)},
	}
	patient = Start(p)
	p.Callers, p.Limit, p.GiveUp = 6, 4*time.Second, true
	return patient, Start(p)
}

// under breaks something while clients are served, and checks the books after.
func (s *siege) under(t *testing.T, what func(l *Traffic)) []Seen {
	t.Helper()
	l, hasty := s.load()
	l.AwaitPaid(t, 0, 4, 30*time.Second)
	l.AwaitPaid(t, 1, 4, 30*time.Second)
	what(l)
	l.AwaitPaid(t, 0, 4, 60*time.Second)
	l.AwaitPaid(t, 1, 4, 60*time.Second)
	seen := append(l.Stop(), hasty.Stop()...)
	t.Log(Summary(seen))
	for _, g := range s.gateways {
		Reconcile(t, seen, g, s.accounts...)
	}
	return seen
}

// TestDatabase takes PostgreSQL away from gateways under load, in every way.
func TestDatabase(t *testing.T) {
	t.Parallel()
	s := besiege(t, 4)
	start := func() {
		if err := s.server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("killed and restarted", func(t *testing.T) {
		WantClean(t, s.under(t, func(l *Traffic) {
			for range either(6, 2) {
				s.server.Kill()
				start()
				l.AwaitPaid(t, 0, 2, 30*time.Second)
			}
		}))
	})
	t.Run("away for 20 s", func(t *testing.T) {
		WantClean(t, s.under(t, func(*Traffic) {
			s.server.Kill()
			time.Sleep(20 * time.Second)
			start()
		}))
	})
	t.Run("stopped and continued", func(t *testing.T) {
		WantClean(t, s.under(t, func(*Traffic) {
			thaw := Freeze(t, s.server.Pid())
			time.Sleep(siegeLease() + 2*time.Second)
			thaw()
		}))
	})
}

// TestPartition takes PostgreSQL away from one of two gateways, past its leases.
// The other goes on with the same accounts and charges what the first has open;
// what the first settles late replaces that.
func TestPartition(t *testing.T) {
	t.Parallel()
	s := besiege(t, 4)
	t.Run("cut", func(t *testing.T) {
		WantClean(t, s.under(t, func(l *Traffic) {
			s.wire.Cut()
			time.Sleep(siegeLease() + 3*time.Second)
			l.AwaitPaid(t, 0, 4, 30*time.Second)
			s.wire.Heal()
		}))
	})
	t.Run("silent", func(t *testing.T) {
		WantClean(t, s.under(t, func(l *Traffic) {
			s.wire.Hang()
			time.Sleep(siegeLease() + 3*time.Second)
			l.AwaitPaid(t, 0, 4, 30*time.Second)
			s.wire.Heal()
		}))
	})
}

// TestPause stops a gateway past its leases while another serves the same
// accounts, then lets it go on: it must not charge again what was swept.
func TestPause(t *testing.T) {
	t.Parallel()
	s := besiege(t, 4)
	t.Run("continued", func(t *testing.T) {
		for range either(3, 1) {
			seen := s.under(t, func(l *Traffic) {
				s.gateways[1].Pause(t)
				time.Sleep(siegeLease() + 5*time.Second)
				l.AwaitPaid(t, 0, 4, 30*time.Second)
				s.gateways[1].Resume(t)
			})
			// Whoever connected during the pause may be past the time limit for a
			// request's header when it ends.
			wantCleanElsewhere(t, seen, 1)
		}
	})
	t.Run("money spent meanwhile", s.spentMeanwhile)
	t.Run("killed", func(t *testing.T) {
		seen := s.under(t, func(l *Traffic) {
			s.gateways[1].Pause(t)
			time.Sleep(siegeLease() + time.Second)
			s.gateways[1].Kill(t)
			s.gateways[1].Restart(t)
		})
		wantCleanElsewhere(t, seen, 1)
	})
}

// wantCleanElsewhere fails for a request that ended neither paid nor refused,
// unless it went to the gateway that was stopped or killed: only that one may
// lose its connections.
func wantCleanElsewhere(t *testing.T, seen []Seen, stopped int) {
	t.Helper()
	for _, one := range seen {
		if !one.Paid() && !one.Refused() && !one.GaveUp && one.Gateway != stopped {
			t.Errorf("neither paid nor cleanly refused: %s", one)
		}
	}
}

// spentMeanwhile spends, at the other gateway, what a stream of the stopped one
// had held: when that goes on and settles, the rest is not billed, and the
// balance is not negative.
func (s *siege) spentMeanwhile(t *testing.T) {
	const deposit, tokens = 4000, 700
	owner, other := s.gateways[1], s.gateways[0]
	v := &victim{account: s.till.Buy(t, owner, deposit)}
	var watching sync.WaitGroup
	watching.Go(func() { v.watch(owner, tokens) })
	labtest.Eventually(t, 20*time.Second, "the stream runs", func() error {
		// Past one renewal.
		if n := v.tokens(time.Now().Add(-siegeLease() / 3)); n < 20 {
			return fmt.Errorf("%d tokens before its last renewal", n)
		}
		return nil
	})
	request := *v.request.Load()
	owner.Pause(t)
	other.Idle(t, v.account, 3*siegeLease())
	swept := other.Charges(t, v.account)[request]
	if !swept.Provisional || swept.Outcome != "swept" || swept.Charged == 0 {
		t.Errorf("the stopped gateway's stream: %+v", swept)
	}
	for {
		a := other.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), v.account.Header())
		if a.Status == http.StatusPaymentRequired {
			break
		}
		a.Want(t, http.StatusOK)
	}
	owner.Resume(t)
	watching.Wait()
	var c lab.Charge
	labtest.Eventually(t, 30*time.Second, "the owner's own settlement stands", func() error {
		if c = other.Charges(t, v.account)[request]; c.Provisional {
			return errors.New("the charge is provisional")
		}
		return nil
	})
	if n := v.tokens(time.Now()); n != tokens || c.Usage.Output != tokens || c.Unbilled <= 0 || c.Charged < swept.Charged || c.Charged+c.Unbilled != c.Usage.Input+4*tokens {
		t.Errorf("%d of %d tokens came; the charge: %+v", n, tokens, c)
	}
	if b := other.Idle(t, v.account, 10*time.Second); b.Available < 0 || b.Available+b.Charged != deposit {
		t.Errorf("in the end: %+v", b)
	}
	t.Logf("swept at %d, in the end charged %d msat and %d unbilled", swept.Charged, c.Charged, c.Unbilled)
	other.Verify(t)
}
