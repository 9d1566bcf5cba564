package client_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// dyingWallet ends the process at the moment of payment.
type dyingWallet struct{}

func (dyingWallet) Pay(context.Context, client.PayRequest) (client.Paid, error) {
	os.Exit(77)
	return client.Paid{}, nil
}

func (dyingWallet) Track(context.Context, l402.PaymentHash) (client.State, client.Paid, error) {
	return client.Unknown, client.Paid{}, nil
}

const (
	envDieURL = "CLIENT_TEST_DIE_URL"
	envDieDir = "CLIENT_TEST_DIE_DIR"
)

// TestDieWhilePaying runs in the process that crashes. In the normal test run it does nothing.
func TestDieWhilePaying(t *testing.T) {
	url, dir := os.Getenv(envDieURL), os.Getenv(envDieDir)
	if url == "" {
		return
	}
	c := buyer(t, nil, dyingWallet{}, dir, func(cfg *client.Config) { cfg.Base = nil })
	_, _, err := call(t.Context(), c, url)
	t.Fatalf("survived: %v", err)
}

// crash runs a process that dies after it stored the intent and before the wallet answered. It
// returns the stored intent.
func crash(t *testing.T, url, dir string) client.Intent {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDieWhilePaying$")
	cmd.Env = append(os.Environ(), envDieURL+"="+url, envDieDir+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 77 {
		t.Fatalf("the helper ended with %v, want exit status 77:\n%s", err, out)
	}
	left := openIntents(t, dir)
	if len(left) != 1 {
		t.Fatalf("intents after the crash: %v, want one", left)
	}
	return left[0]
}

func TestCrashWhilePaying(t *testing.T) {
	for name, tc := range map[string]struct {
		state    client.State
		later    time.Duration // how much later the next process runs
		payments int           // payments that the next process makes
		err      bool
	}{
		"the payment succeeded":            {state: client.Succeeded},
		"the payment failed":               {state: client.Failed, payments: 1},
		"the payment is in flight":         {state: client.InFlight, err: true},
		"the order may still arrive":       {state: client.Unknown, err: true},
		"the order cannot arrive any more": {state: client.Unknown, later: 16 * time.Second, payments: 1},
	} {
		t.Run(name, func(t *testing.T) {
			g, dir := newGateway(t), t.TempDir()
			server := httptest.NewServer(g)
			defer server.Close()
			url := server.URL + "/inference/call"
			in := crash(t, url, dir)

			w := &fakeWallet{g: g}
			w.track = func(hash l402.PaymentHash) (client.State, client.Paid, error) {
				if hash != in.Hash {
					t.Errorf("asked for %s, want %s", hash, in.Hash)
				}
				return tc.state, w.proof(hash), nil
			}
			c := buyer(t, g, w, dir, func(cfg *client.Config) {
				cfg.Base = nil
				cfg.PaymentTimeout = 300 * time.Millisecond // do not wait long for a payment in flight
				cfg.Now = func() time.Time { return time.Now().Add(tc.later) }
			})
			status, _, err := call(t.Context(), c, url)
			var pay *client.PaymentError
			switch {
			case tc.err && (!errors.As(err, &pay) || !pay.InFlight || pay.Hash != in.Hash):
				t.Errorf("error %v, want a payment in flight", err)
			case !tc.err && (err != nil || status != 200):
				t.Errorf("%d %v", status, err)
			}
			if w.payments() != tc.payments {
				t.Errorf("%d payments after the crash, want %d", w.payments(), tc.payments)
			}
			if left := openIntents(t, dir); (len(left) == 1) != tc.err {
				t.Errorf("intents left: %v", left)
			}
			if tc.state == client.Succeeded && g.challenges != 1 {
				t.Errorf("%d challenges: the bought token was not presented first", g.challenges)
			}
		})
	}
}

func TestTimeoutThenSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, dir := newGateway(t), t.TempDir()
		w := &fakeWallet{g: g}
		state := client.InFlight
		w.pay = func(ctx context.Context, _ client.PayRequest) (client.Paid, error) {
			<-ctx.Done() // the wallet never answers
			return client.Paid{}, ctx.Err()
		}
		w.track = func(h l402.PaymentHash) (client.State, client.Paid, error) { return state, w.proof(h), nil }
		c := buyer(t, g, w, dir)
		var pay *client.PaymentError
		for range 2 { // the second request finds the intent of the first
			begun := time.Now()
			if _, _, err := call(t.Context(), c, callURL); !errors.As(err, &pay) || !pay.InFlight {
				t.Fatalf("error %v, want a payment in flight", err)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("gave up after %s", took)
			}
		}
		state = client.Succeeded
		mustCall(t, c, callURL)
		if w.payments() != 1 || len(openIntents(t, dir)) != 0 {
			t.Errorf("%d payments, intents %v", w.payments(), openIntents(t, dir))
		}
	})
}

func TestPaymentInFlightIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		w := &fakeWallet{g: g}
		begun := time.Now()
		w.pay = func(context.Context, client.PayRequest) (client.Paid, error) {
			return client.Paid{}, errors.New("connection lost")
		}
		w.track = func(h l402.PaymentHash) (client.State, client.Paid, error) {
			if time.Since(begun) < 20*time.Second {
				return client.InFlight, client.Paid{}, nil
			}
			return client.Succeeded, w.proof(h), nil
		}
		c := buyer(t, g, w, t.TempDir())
		if _, _, err := call(t.Context(), c, callURL); err == nil {
			t.Fatal("want the doubt reported")
		}
		mustCall(t, c, callURL) // waits for the payment, then uses what was bought
		if w.payments() != 1 {
			t.Errorf("%d payments", w.payments())
		}
	})
}

func TestWalletIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, dir := newGateway(t), t.TempDir()
		w := &fakeWallet{g: g}
		away := errors.New("wallet is away")
		w.pay = func(context.Context, client.PayRequest) (client.Paid, error) { return client.Paid{}, away }
		w.track = func(l402.PaymentHash) (client.State, client.Paid, error) { return 0, client.Paid{}, away }
		c := buyer(t, g, w, dir)
		for range 2 {
			var pay *client.PaymentError
			if _, _, err := call(t.Context(), c, callURL); !errors.As(err, &pay) || !errors.Is(err, away) || !pay.InFlight {
				t.Fatalf("error %v", err)
			}
		}
		if w.payments() != 1 {
			t.Fatalf("%d orders while the first is in doubt", w.payments())
		}
		w.pay, w.track = nil, nil // the wallet works again and does not know the payment
		time.Sleep(20 * time.Second)
		mustCall(t, c, callURL)
		if w.payments() != 2 || len(openIntents(t, dir)) != 0 {
			t.Errorf("%d orders, intents %v", w.payments(), openIntents(t, dir))
		}
	})
}

func TestFailedPaymentIsForgotten(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	w.pay = func(context.Context, client.PayRequest) (client.Paid, error) {
		return client.Paid{}, errors.Join(client.ErrPaymentFailed, errors.New("no route"))
	}
	c := buyer(t, g, w, dir)
	var pay *client.PaymentError
	if _, _, err := call(t.Context(), c, callURL); !errors.As(err, &pay) || pay.InFlight {
		t.Fatalf("error %v", err)
	}
	if left := openIntents(t, dir); len(left) != 0 {
		t.Errorf("intents left: %v", left)
	}
	w.pay = nil
	mustCall(t, c, callURL)
}

func TestWrongPreimageIsKeptAsDoubt(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	w.pay = func(context.Context, client.PayRequest) (client.Paid, error) { return client.Paid{}, nil }
	var pay *client.PaymentError
	if _, _, err := call(t.Context(), buyer(t, g, w, dir), callURL); !errors.As(err, &pay) || !pay.InFlight {
		t.Fatalf("error %v", err)
	}
	if len(openIntents(t, dir)) != 1 || len(storedTokens(t, dir)) != 0 {
		t.Error("a payment without proof became a token")
	}
}

func TestCallerLeavesDuringThePayment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, dir := newGateway(t), t.TempDir()
		w := &fakeWallet{g: g}
		w.pay = func(ctx context.Context, r client.PayRequest) (client.Paid, error) {
			select {
			case <-time.After(10 * time.Second):
				return w.proof(r.Hash), nil
			case <-ctx.Done():
				return client.Paid{}, ctx.Err()
			}
		}
		c := buyer(t, g, w, dir)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := call(ctx, c, callURL); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		mustCall(t, c, callURL) // waits for the purchase of the caller that has left
		if w.payments() != 1 {
			t.Errorf("%d payments", w.payments())
		}
	})
}

func TestRepeatedTopUpAfterDoubtPaysOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, dir := newGateway(t), t.TempDir()
		w := &fakeWallet{g: g}
		c := buyer(t, g, w, dir)
		mustCall(t, c, callURL)
		state := client.InFlight
		w.pay = func(context.Context, client.PayRequest) (client.Paid, error) {
			return client.Paid{}, errors.New("connection lost")
		}
		w.track = func(h l402.PaymentHash) (client.State, client.Paid, error) { return state, w.proof(h), nil }
		if _, _, err := c.TopUp(t.Context(), "http://gateway.test", 20_000); err == nil {
			t.Fatal("want the doubt reported")
		}
		state = client.Succeeded
		p, b, err := c.TopUp(t.Context(), "http://gateway.test", 20_000)
		if err != nil || p.Amount != 20_000 || b.Available != 29_000 || w.payments() != 2 {
			t.Errorf("%+v, %+v, %v, %d payments", p, b, err, w.payments())
		}
	})
}

// losingStore is a store whose Commit fails, as when the disk is full after the payment.
type losingStore struct {
	client.Store
	fail bool
}

func (s *losingStore) Commit(in client.Intent, t client.Token) error {
	if s.fail {
		return errors.New("disk full")
	}
	return s.Store.Commit(in, t)
}

func TestStoreFailsAfterPaying(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	w.track = func(h l402.PaymentHash) (client.State, client.Paid, error) { return client.Succeeded, w.proof(h), nil }
	s := &losingStore{fail: true}
	c := buyer(t, g, w, dir, func(cfg *client.Config) { s.Store = cfg.Store; cfg.Store = s })
	var pay *client.PaymentError
	if _, _, err := call(t.Context(), c, callURL); !errors.As(err, &pay) || !pay.InFlight {
		t.Fatalf("error %v", err)
	}
	s.fail = false
	mustCall(t, c, callURL)
	if w.payments() != 1 {
		t.Errorf("%d payments", w.payments())
	}
}
