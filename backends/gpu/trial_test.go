package gpu

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// proving makes f use say as its prover, and counts the prover's requests.
func proving(f *Fleet, say func(model string) Result) *atomic.Int32 {
	var n atomic.Int32
	f.ProveWith(func(_ context.Context, _ *Backend, model string) Result {
		n.Add(1)
		return say(model)
	})
	return &n
}

// A failure that may be the request's fault puts a backend on trial, whichever account the request
// comes from. The verdict remains in force for a while.
func TestTrialOfASuspectedBackend(t *testing.T) {
	for name, c := range map[string]struct {
		result Result
		needs  int  // requests of one account until there is a trial
		varied bool // accounts and bodies vary
	}{
		"a 403":                   {Result{Status: 403, Doubtful: true}, 1, false},
		"a 401":                   {Result{Status: 401, Refused: true, Doubtful: true}, 1, false},
		"failures of one account": {Result{Status: 500, Doubtful: true}, doubtMost, false},
		"claims of one account":   {Result{Status: 500, RequestFault: true}, doubtMost, false},
		"claims of three":         {Result{Status: 500, RequestFault: true}, 3, true},
	} {
		for _, serves := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				f := fleetOf(t, map[string]int{"a": 9}, PoolConfig{Model: "m", Backends: []string{"a"}})
				p := f.Pool("m")
				var verdict atomic.Pointer[Result]
				verdict.Store(&Result{Status: c.result.Status, RequestFault: c.result.RequestFault, Doubtful: c.result.Doubtful})
				if serves {
					verdict.Store(&Result{Status: 200})
				}
				asked := proving(f, func(string) Result { return *verdict.Load() })
				send := func(i int) {
					r, key := c.result, Key{}
					if r.Body = 7; c.varied {
						r.Body, key[0] = uint64(i)+8, byte(i)+1
					}
					ticket, err := p.Admit(key)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					l, err := ticket.Wait(t.Context())
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					l.Done(r)
					synctest.Wait()
				}
				for i := range c.needs {
					if asked.Load() != 0 || f.Status()[0].Ejected {
						t.Errorf("%s: on trial after %d", name, i)
					}
					send(i)
				}
				s := f.Status()[0]
				if asked.Load() != 1 || s.Ejected == serves || s.KeyRefused != (!serves && c.result.Status < 500) || p.Serves() != serves {
					t.Errorf("%s, serves %t: asked %d times: %+v", name, serves, asked.Load(), s)
				}
				if serves {
					for i := range 2 * c.needs {
						send(100 * (i + 1) % 7)
					}
					if n := asked.Load(); n != 1 {
						t.Errorf("%s: asked %d times within a moment", name, n)
					}
					time.Sleep(trialPause)
					for i := range c.needs {
						send(i)
					}
					if n := asked.Load(); n < 2 || n > 3 {
						t.Errorf("%s: asked %d times in all", name, n)
					}
					return
				}
				verdict.Store(&Result{Status: 200})
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if s := f.Status()[0]; s.Ejected || !p.Serves() {
					t.Errorf("%s: it does not come back: %+v", name, s)
				}
			})
		}
	}
}

// Failures with one body from many accounts eject no backend, and neither do failures with many bodies
// from one account.
func TestDoubtsNeedAccountsAndBodies(t *testing.T) {
	for name, c := range map[string]struct {
		accounts, bodies int
		ejected          bool
	}{"one body": {9, 1, false}, "one account": {1, 9, false}, "two accounts": {2, 9, false}, "three of each": {3, 3, true}} {
		synctest.Test(t, func(t *testing.T) {
			f := fleetOf(t, map[string]int{"a": 9}, PoolConfig{Model: "m", Backends: []string{"a"}})
			proving(f, func(string) Result { return Result{Status: 500} })
			for i := range doubtMost - 1 {
				ticket, err := f.Pool("m").Admit(Key{byte(i % c.accounts)})
				if err != nil {
					t.Fatal(err)
				}
				l, err := ticket.Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				l.Done(Result{Status: 500, Doubtful: true, Body: uint64(i%c.bodies) + 1})
			}
			synctest.Wait()
			if f.Status()[0].Ejected != c.ejected {
				t.Errorf("%s: %+v", name, f.Status()[0])
			}
		})
	}
}

// A model that the gateway's key may not use does not stop the backend from serving other models.
func TestKeyThatMayNotUseOneModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 9}, PoolConfig{Model: "mine", Backends: []string{"a"}}, PoolConfig{Model: "theirs", Backends: []string{"a"}})
		f.backend("a").transport.DialContext = newPipes().dial
		proving(f, func(model string) Result {
			if model == "theirs" {
				return Result{Status: 403, Doubtful: true}
			}
			return Result{Status: 200}
		})
		mustLease(t, f.Pool("theirs")).Done(Result{Status: 403, Doubtful: true})
		synctest.Wait()
		s := f.Status()[0]
		if s.Ejected || s.KeyRefused || s.Lacks["theirs"] == "" || f.Pool("theirs").Serves() || !f.Pool("mine").Serves() {
			t.Errorf("status %+v", s)
		}
	})
}

// A trial may take long, and another configuration may come meanwhile. The race detector checks this.
func TestTrialBesideAnotherConfiguration(t *testing.T) {
	a := BackendConfig{Name: "a", URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Slots: 4}
	of := func(models ...string) Config {
		c := Config{Backends: []BackendConfig{a}}
		for _, m := range models {
			c.Pools = append(c.Pools, PoolConfig{Model: m, Backends: []string{"a"}})
		}
		return c
	}
	f := newFleet(t, of("m", "n"))
	asked := proving(f, func(string) Result { return Result{Status: 403} })
	b, p := f.backend("a"), f.Pool("m")
	var trials sync.WaitGroup
	trials.Go(func() {
		for range 200 {
			if err := b.proveAny(p); !isDenial(err) {
				t.Errorf("the key is refused everywhere: %v", err)
			}
		}
	})
	for range 200 {
		change(t, f, of("m"))
		change(t, f, of("m", "n", "o"))
	}
	trials.Wait()
	if asked.Load() < 200 {
		t.Errorf("asked %d times", asked.Load())
	}
}
