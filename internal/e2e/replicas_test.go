package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/internal/store/pgtest"
)

// replicas are gateways on one PostgreSQL, each with a file and a certificate of its
// own. The first is told of a change by SIGHUP, the second by POST /admin/reload, and
// the third watches its file.
type replicas struct {
	list  []*reloading
	k     credential // buys now and then at the price of now
	price int        // of an output token, in msat
	two   bool       // there is a second backend
}

// TestReplicasOutliveReloads keeps 200 streams open at three replicas while all of their
// configurations change 50 times: prices, a backend that leaves and comes back, one that
// the operator drains, certificates, files that are wrong. No stream breaks, each is
// charged at the rates with which it began, and a new request sees the new catalog
// within a second, whichever replica it comes to.
func TestReplicasOutliveReloads(t *testing.T) {
	t.Parallel()
	_, url, err := startInference(t.Context(), inference.Config{Model: "demo", TokensPerSecond: 10, MaxModelLen: 4096, Slots: 1024, Seed: 6})
	if err != nil {
		t.Fatal(err)
	}
	f := &replicas{price: 4, two: true}
	store, key := pgtest.Start(t), newKey("shared")
	for i := range 3 {
		f.list = append(f.list, startReplica(t, url, store, key, i == 2))
	}
	open := make([]*streams, len(f.list))
	for i, r := range f.list {
		open[i] = newStreams(t, r.client, r.client.unlocked(t, r.client.buy(t, 10_000), 1_000_000)) // no quote holds the first price
	}
	f.k = f.list[0].client.unlocked(t, f.list[0].client.buy(t, 10_000), 500_000)
	for i := range reloadStreams {
		open[i%len(open)].begin(f.price)
	}
	pace := time.NewTicker(200 * time.Millisecond) // so that all of it happens within the streams
	defer pace.Stop()
	began := time.Now()
	for n := range reloads {
		<-pace.C
		f.change(t, n)
		if n%5 == 4 {
			f.buy(t, f.list[n%len(f.list)])
			open[n%len(open)].begin(f.price)
		}
	}
	left := 0 // requests that are open after the last reload
	for _, r := range f.list {
		left += r.openRequests(t)
	}
	t.Logf("%d changes took %s", reloads, time.Since(began).Round(100*time.Millisecond))
	if want := reloadStreams + reloads/5; left != want && !proc.RaceDetector { // the detector slows reloads down
		t.Errorf("%d requests are open after the reloads, want all %d", left, want)
	}
	for _, list := range open {
		list.wantPaid()
	}
	f.list[0].verify(t)
}

// startReplica starts one before the inference server at url.
func startReplica(t *testing.T, url, store string, key masterKey, watch bool) *reloading {
	t.Helper()
	cert, certKey, _ := selfSigned(t)
	r := &reloading{price: 4, two: true, watch: watch}
	r.own = startGateway(t, func(s *setup) {
		s.Cert, s.Key, s.BackendURL, s.Drain, s.Store, s.Keys = cert, certKey, url, "60s", quoted(store), []masterKey{key}
		if s.Sale = saleOfTwo; watch {
			s.Sale += "watch: true\n"
		}
	})
	r.client = r.over(t, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256})
	return r
}

// change makes the nth change, and wants a new request to see it everywhere within a
// second of the last file that was written.
func (f *replicas) change(t *testing.T, n int) {
	t.Helper()
	odd := f.list[n%len(f.list)]
	switch n % 6 {
	case 0, 3:
		f.price = 4 + n%7
	case 1:
		f.two = !f.two
	case 2:
		for _, r := range f.list {
			r.renew(t)
		}
	case 4:
		odd.refuse(t)
		return
	case 5:
		f.drain(t, odd)
		return
	}
	for i := range f.list { // in another order each time
		r := f.list[(i+n)%len(f.list)]
		r.price, r.two = f.price, f.two
		r.save(t)
		if r.watch {
			continue
		}
		if r == f.list[0] {
			if err := syscall.Kill(r.server.Process().Pid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r.operator(t, http.MethodPost, "/admin/reload").want(t, http.StatusOK)
	}
	written := time.Now()
	for _, r := range f.list {
		labtest.Eventually(t, time.Until(written.Add(time.Second)), "a new request sees the catalog at every replica", func() error { return r.seen(t) })
	}
}

// drain has the operator take a backend from one replica while there are two, and give it
// back.
func (f *replicas) drain(t *testing.T, r *reloading) {
	t.Helper()
	if !f.two {
		return
	}
	for _, on := range []bool{true, false} {
		r.operator(t, http.MethodPost, "/admin/backends", fmt.Sprintf(`{"backend":"one","drain":%t}`, on)).want(t, http.StatusOK)
		if drained := r.metric(t, `sluice_backend_drained{backend="one"}`); (drained == 1) != on {
			t.Errorf("drained: %v, want %t", drained, on)
		}
		f.buy(t, r)
	}
}

// buy has a short answer bought, at the price of now.
func (f *replicas) buy(t *testing.T, r *reloading) {
	t.Helper()
	a := r.client.post(t, chat("max_tokens", "2"), f.k.header()).want(t, http.StatusOK)
	c := r.client.entry(t, f.k, a.header.Get("L402-Request-Id"))
	if want := c.Usage.Input + int64(f.price)*c.Usage.Output; c.Charged != want || c.Usage.Output != 2 || a.header.Get("L402-Cost-Msat") != strconv.FormatInt(want, 10) {
		t.Errorf("a new request costs %d msat, want %d at %d msat a token: %+v", c.Charged, want, f.price, c)
	}
}
