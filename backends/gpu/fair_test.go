package gpu

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// waiter is one request that is or was in the queue.
type waiter struct {
	name  string
	lease *Lease
	err   error
	done  bool
}

// line lets requests of accounts wait, and records the order in which they are served.
type line struct {
	t      *testing.T
	served []string
	all    map[string]*waiter
}

// join lets the account's next request wait. The request's name is the account and a number.
func (l *line) join(p *Pool, account byte) *waiter {
	l.t.Helper()
	n := 1
	for l.all[fmt.Sprintf("%c%d", account, n)] != nil {
		n++
	}
	w := &waiter{name: fmt.Sprintf("%c%d", account, n)}
	ticket, err := p.Admit(Key{account})
	if err != nil {
		w.err, w.done = err, true
		return w
	}
	l.all[w.name] = w
	go func() {
		w.lease, w.err = ticket.Wait(context.Background())
		w.done = true
		if w.err == nil {
			l.served = append(l.served, w.name)
		}
	}()
	synctest.Wait()
	return w
}

// run serves the waiting requests one after the other. It begins by ending running.
func (l *line) run(running *Lease) {
	for {
		before := len(l.served)
		running.Done(Result{Status: 200, Took: time.Second})
		synctest.Wait()
		if len(l.served) == before {
			return
		}
		running = l.all[l.served[before]].lease
	}
}

func newLine(t *testing.T) *line { return &line{t: t, all: map[string]*waiter{}} }

func (l *line) want(order ...string) {
	l.t.Helper()
	if got, want := fmt.Sprint(l.served), fmt.Sprint(order); got != want {
		l.t.Errorf("served in the order %v, want %v", got, want)
	}
}

func TestAccountsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 20})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		for range 5 {
			l.join(p, 'A')
		}
		l.join(p, 'B')
		l.join(p, 'B')
		l.join(p, 'C')
		l.run(running)
		l.want("A1", "B1", "C1", "A2", "B2", "A3", "A4", "A5")
		idle(t, f)
	})
}

func TestLateAccountIsServedNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 200})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		for range 100 {
			l.join(p, 'A')
		}
		for i := range 30 { // while the queue moves
			running.Done(Result{Status: 200})
			synctest.Wait()
			running = l.all[l.served[i]].lease
		}
		l.join(p, 'B')
		at := len(l.served)
		l.run(running)
		if l.served[at+1] != "B1" { // the request of this turn that came before is served first
			t.Errorf("after B came: %v", l.served[at:at+5])
		}
		idle(t, f)
	})
}

func TestNewcomersDoNotStarveABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 50})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		l.join(p, 'A')
		l.join(p, 'A')
		l.join(p, 'A')
		for i := range 12 { // a new account at every turn
			l.join(p, 'a'+byte(i))
			running.Done(Result{Status: 200})
			synctest.Wait()
			running = l.all[l.served[i]].lease
		}
		count := 0
		for _, name := range l.served[:8] {
			if name[0] == 'A' {
				count++
			}
		}
		if count != 3 {
			t.Errorf("served %v: the account that waited got %d turns of 8, want all of its 3", l.served, count)
		}
		l.run(running)
		idle(t, f)
	})
}

func TestFullQueueMakesRoomForAnotherAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 4})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		for range 4 {
			l.join(p, 'A')
		}
		var full *FullError
		if w := l.join(p, 'A'); !errors.As(w.err, &full) {
			t.Fatalf("a fifth request of the account: %v", w.err)
		}
		b := l.join(p, 'B')
		if b.done {
			t.Fatalf("the other account got no place: %v", b.err)
		}
		if last := l.all["A4"]; !errors.As(last.err, &full) || !full.Own || full.RetryAfter < time.Second {
			t.Errorf("the newest of the account with the most: %v", last.err)
		}
		l.join(p, 'B')
		if w := l.join(p, 'B'); w.err == nil { // each account has two requests now
			t.Error("an account took more than its half from the other")
		}
		if s := f.Pools()[0]; s.PushedOut != 2 || s.Refused != 4 || s.Waiting != 4 {
			t.Errorf("status %+v", s)
		}
		l.run(running)
		l.want("A1", "B1", "A2", "B2")
		idle(t, f)
	})
}

// Callers who are admitted, and then turn out to have no money, never take the place of a waiting
// request.
func TestTicketsWithoutMoneyPushNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 4})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		for range 4 {
			l.join(p, 'A')
		}
		var tickets []*Ticket
		for i := range 100 {
			ticket, err := p.Admit(Key{'z', byte(i)})
			if err == nil {
				tickets = append(tickets, ticket)
			}
		}
		if len(tickets) != 4 {
			t.Errorf("%d tickets beyond the limit, want as many as the limit", len(tickets))
		}
		for _, ticket := range tickets {
			ticket.Cancel()
		}
		l.run(running)
		l.want("A1", "A2", "A3", "A4")
		idle(t, f)
	})
}

func TestAccountHasAtMostItsShareOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1},
			PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 10, PerAccount: 3},
			PoolConfig{Model: "n", Backends: []string{"a"}, QueueLimit: 10, PerAccount: 3})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		l.join(p, 'A')
		l.join(p, 'A')
		l.join(f.Pool("n"), 'A')
		var full *FullError
		if w := l.join(p, 'A'); !errors.As(w.err, &full) || !full.Own {
			t.Errorf("a fourth request: %v", w.err)
		}
		// These requests were admitted together. They learn the outcome when they ask for the slot.
		l.run(running)
		running = mustLease(t, p)
		var tickets []*Ticket
		for range 5 {
			ticket, err := p.Admit(Key{'B'})
			if err != nil {
				t.Fatal(err)
			}
			tickets = append(tickets, ticket)
		}
		errs := make(chan error, 5)
		for _, ticket := range tickets {
			go func() {
				lease, err := ticket.Wait(context.Background())
				if err == nil {
					lease.Done(Result{Status: 200})
				}
				errs <- err
			}()
		}
		synctest.Wait()
		if len(errs) != 2 {
			t.Errorf("%d were refused, want 2 of 5", len(errs))
		}
		running.Done(Result{Status: 200})
		synctest.Wait()
		idle(t, f)
	})
}

// The requests of one account for one model do not precede those of another account for a second model
// on the same backend.
func TestAccountsTakeTurnsOverModelsOfOneBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1, "x": 1, "y": 1},
			PoolConfig{Model: "m", Backends: []string{"a", "x"}, QueueLimit: 9},
			PoolConfig{Model: "other", Backends: []string{"y"}, QueueLimit: 9},
			PoolConfig{Model: "n", Backends: []string{"a"}, QueueLimit: 9})
		if f.Pool("m").domain != f.Pool("n").domain || f.Pool("m").domain == f.Pool("other").domain {
			t.Fatal("the wrong pools belong together")
		}
		f.backend("x").health.up = false
		m, n, l := f.Pool("m"), f.Pool("n"), newLine(t)
		running := mustLease(t, m)
		for range 4 {
			l.join(m, 'A')
		}
		l.join(n, 'B')
		l.run(running)
		l.want("A1", "B1", "A2", "A3", "A4")
		idle(t, f)
	})
}

func TestHangingUpLeavesTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 20})
		p, l := f.Pool("m"), newLine(t)
		running := mustLease(t, p)
		cancels := map[string]context.CancelFunc{}
		for _, name := range []string{"A1", "A2", "B1", "A3", "B2", "C1"} {
			ticket, err := p.Admit(Key{name[0]})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			w := &waiter{name: name}
			l.all[name], cancels[name] = w, cancel
			go func() {
				if w.lease, w.err = ticket.Wait(ctx); w.err == nil {
					l.served = append(l.served, name)
				}
			}()
			synctest.Wait()
		}
		// C1 is the only request of its account. A and B keep other requests.
		for _, name := range []string{"A2", "B1", "C1"} {
			cancels[name]()
			synctest.Wait()
		}
		l.join(p, 'D')
		l.run(running)
		l.want("A1", "D1", "B2", "A3")
		idle(t, f)
	})
}

// BenchmarkQueue measures a request that waits behind 1,000 others of 10 accounts.
func BenchmarkQueue(b *testing.B) {
	f := fleetOf(b, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 2000})
	p := f.Pool("m")
	mustLease(b, p)
	f.mu.Lock()
	defer f.mu.Unlock()
	join := func(i int) {
		f.seq++
		t := &Ticket{pool: p, key: Key{byte(i % 10)}, seq: f.seq, state: queued, ready: make(chan struct{})}
		if err := p.enter(t); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		join(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		join(i)
		p.domain.round = max(p.domain.round, p.queue.head.round)
		p.leave(p.queue.head)
	}
}

// Now gives a slot that is free and for which no request waits, whether for this model or for another
// model of the same backend. It takes no place in the queue.
func TestNowWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1},
			PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 4}, PoolConfig{Model: "n", Backends: []string{"a"}, QueueLimit: 4})
		now := func() (*Lease, error) {
			t.Helper()
			ticket, err := f.Pool("m").Admit(Key{9})
			if err != nil {
				t.Fatal(err)
			}
			lease, err := ticket.Now()
			if _, again := ticket.Now(); !errors.Is(again, ErrSpent) {
				t.Errorf("a second time: %v", again)
			}
			return lease, err
		}
		lease, err := now()
		if err != nil {
			t.Fatalf("an idle backend: %v", err)
		}
		if _, err := now(); !errors.Is(err, ErrBusy) {
			t.Errorf("a busy backend: %v", err)
		}
		waiter, err := f.Pool("n").Admit(Key{1})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan *Lease)
		go func() {
			lease, err := waiter.Wait(t.Context())
			if err != nil {
				t.Error(err)
			}
			served <- lease
		}()
		synctest.Wait()
		f.backends[0].set.Slots = 2 // one slot is free, and a request for another model waits for it
		if _, err := now(); !errors.Is(err, ErrBusy) {
			t.Errorf("a slot that another waits for: %v", err)
		}
		f.backends[0].set.Slots = 1
		lease.Done(Result{})
		(<-served).Done(Result{})
		if n := f.Pool("m").places; n != 0 {
			t.Errorf("%d places are still taken", n)
		}
		if lease, err := now(); err != nil {
			t.Errorf("idle again: %v", err)
		} else {
			lease.Done(Result{})
		}
	})
}

// Look returns what Admit would return, however many callers look at once, and takes no place.
func TestLookTakesNoPlace(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 1})
	p := f.Pool("m")
	lease := mustLease(t, p)
	for i := range 5 {
		if err := p.Look(Key{byte(i)}, Bid{}); err != nil {
			t.Errorf("look %d: %v", i, err)
		}
	}
	ticket, err := p.Admit(Key{9})
	if err != nil {
		t.Fatal(err)
	}
	defer ticket.Cancel()
	var full *FullError
	if err := p.Look(Key{1}, Bid{}); !errors.As(err, &full) {
		t.Errorf("a full pool looks as if it had room: %v", err)
	}
	lease.Done(Result{})
	if n := p.places; n != 1 {
		t.Errorf("%d places are taken", n)
	}
}
