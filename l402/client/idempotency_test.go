package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402/client"
)

// keyed records the Idempotency-Key of each request that carries a credential. It can drop the
// gateway's answers.
type keyed struct {
	http.RoundTripper
	keys []string
	lose func(n int) (status int, err error) // n counts from 0; 0, nil: return the answer of the gateway
}

func (k *keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := k.RoundTripper.RoundTrip(r)
	if r.Header.Get("Authorization") == "" {
		return resp, err
	}
	n := len(k.keys)
	k.keys = append(k.keys, r.Header.Get("Idempotency-Key"))
	if k.lose == nil {
		return resp, err
	}
	status, lost := k.lose(n)
	if lost != nil {
		return nil, lost
	}
	if status != 0 {
		resp.StatusCode = status
	}
	return resp, err
}

var errLost = errors.New("connection reset")

// send makes one attempt of a call, as an SDK does.
func send(ctx context.Context, c *client.Client, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, callURL, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.RoundTrip(req)
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

// An SDK that sends a call again after its answer was lost uses the key of the first attempt.
func TestRepetitionsCarryOneIdempotencyKey(t *testing.T) {
	for name, lose := range map[string]func(n int) (int, error){
		"connection": func(n int) (int, error) {
			if n < 2 {
				return 0, errLost
			}
			return 0, nil
		},
		"server error": func(n int) (int, error) {
			if n < 2 {
				return http.StatusBadGateway, nil
			}
			return 0, nil
		},
		"limited": func(n int) (int, error) {
			if n < 2 {
				return http.StatusTooManyRequests, nil
			}
			return 0, nil
		},
	} {
		g := newGateway(t)
		k := &keyed{RoundTripper: g, lose: lose}
		w := &fakeWallet{g: g}
		c := buyer(t, g, w, t.TempDir(), func(cfg *client.Config) { cfg.Base = k })
		for attempt, number := range []string{"0", "1", "2"} {
			headers := []string{}
			if name != "connection" {
				headers = []string{"X-Stainless-Retry-Count", number}
			}
			resp, err := send(t.Context(), c, "question", headers...)
			if failed := err != nil || resp.StatusCode != http.StatusOK; failed != (attempt < 2) {
				t.Fatalf("%s: attempt %d: %v", name, attempt, err)
			}
		}
		if len(k.keys) != 3 || k.keys[0] == "" || k.keys[1] != k.keys[0] || k.keys[2] != k.keys[0] {
			t.Errorf("%s: keys %q, want one", name, k.keys)
		}
		if w.payments() != 1 {
			t.Errorf("%s: %d payments", name, w.payments())
		}
		// The call was answered, so the same request is a new call.
		if _, err := send(t.Context(), c, "question"); err != nil || k.keys[3] == k.keys[0] {
			t.Errorf("%s: a new call has the old key", name)
		}
	}
}

// A call that only looks like a repetition has another key.
func TestDifferentCallsHaveDifferentKeys(t *testing.T) {
	g := newGateway(t)
	fail := true
	k := &keyed{RoundTripper: g, lose: func(int) (int, error) {
		if fail {
			return 0, errLost
		}
		return 0, nil
	}}
	now := time.Now()
	c := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base, cfg.Now = k, func() time.Time { return now } })
	send(t.Context(), c, "a")
	send(t.Context(), c, "b") // another body
	now = now.Add(11 * time.Minute)
	send(t.Context(), c, "a") // too late to be a repetition
	fail = false
	send(t.Context(), c, "c")
	send(t.Context(), c, "c") // a new call, because the first was answered
	// Two equal calls run at the same time.
	g2 := newGateway(t)
	k2 := &keyed{RoundTripper: g2}
	inner := false
	c2 := buyer(t, g2, &fakeWallet{g: g2}, t.TempDir(), func(cfg *client.Config) { cfg.Base = k2 })
	k2.lose = func(int) (int, error) {
		if !inner {
			inner = true
			send(t.Context(), c2, "a")
		}
		return 0, nil
	}
	send(t.Context(), c2, "a")
	seen := map[string]bool{}
	for _, key := range append(k.keys, k2.keys...) {
		if key == "" || seen[key] {
			t.Errorf("keys %q and %q", k.keys, k2.keys)
		}
		seen[key] = true
	}
}

// WithIdempotencyKey makes several requests one call. A key that the caller set itself is not
// changed.
func TestIdempotencyKeyOfTheCaller(t *testing.T) {
	g := newGateway(t)
	k := &keyed{RoundTripper: g}
	c := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base = k })
	ctx := client.WithIdempotencyKey(t.Context(), "")
	send(ctx, c, "a")
	send(ctx, c, "a")
	send(ctx, c, "b")
	send(client.WithIdempotencyKey(t.Context(), "mine"), c, "a")
	send(client.WithIdempotencyKey(t.Context(), "mine"), c, "a")
	send(ctx, c, "a", "Idempotency-Key", "by hand")
	if k.keys[0] == "" || k.keys[1] != k.keys[0] || k.keys[2] == k.keys[0] || k.keys[3] == k.keys[0] || k.keys[4] != k.keys[3] || k.keys[5] != "by hand" {
		t.Errorf("keys %q", k.keys)
	}
}

// A request to a server that the client does not know gets no key, because net/http would send a
// POST with a key again by itself.
func TestUnpaidRequestsHaveNoKeyOfOurOwn(t *testing.T) {
	var seen []string
	free := roundTripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header.Get("Idempotency-Key"))
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	})
	g := newGateway(t)
	c := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base = free })
	if _, err := send(t.Context(), c, "a"); err != nil || len(seen) != 1 || seen[0] != "" {
		t.Errorf("%q %v", seen, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
