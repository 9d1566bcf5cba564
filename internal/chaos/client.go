package chaos

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/l402"
)

// ChatPath is the metered route.
const ChatPath = "/v1/chat/completions"

// Credential is a paid token.
type Credential struct {
	Macaroon []byte
	Preimage l402.Preimage
	ID       l402.Identifier
	Paid     int64 // msat
}

// Header pays with the credential.
func (k Credential) Header() http.Header {
	return http.Header{"Authorization": {l402.FormatCredential(k.Macaroon, k.Preimage)}}
}

// Attenuate adds caveats, offline.
func (k Credential) Attenuate(t testing.TB, conditions ...string) Credential {
	t.Helper()
	m, err := l402.Attenuate(k.Macaroon, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	k.Macaroon = m
	return k
}

// Answer is a whole answer.
type Answer struct{ *lab.Answer }

// Ask is Do within half a minute; no answer fails the test.
func (g *Gateway) Ask(t testing.TB, method, path, body string, h http.Header) *Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, err := g.Do(ctx, method, path, body, h)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return &Answer{a}
}

// Want checks the status.
func (a *Answer) Want(t testing.TB, status int) *Answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	return a
}

// Metrics are the operator's, by name and labels as they are written there.
func (g *Gateway) Metrics() (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.Server.Metrics(ctx)
}

// Chat is the body of a chat request for exactly that many tokens.
func Chat(model string, tokens int, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Tell me about the mill and the river."}],"max_tokens":%d,"ignore_eos":true,"stream":%t}`,
		model, tokens, stream)
}

// TryBalance asks for the balance; the error names any status but 200.
func (g *Gateway) TryBalance(k Credential) (lab.Balance, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.Server.Balance(ctx, k.Header())
}

// Balance asks for the balance.
func (g *Gateway) Balance(t testing.TB, k Credential) lab.Balance {
	t.Helper()
	b, err := g.TryBalance(k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Idle waits until nothing is held on the account and returns its balance.
func (g *Gateway) Idle(t testing.TB, k Credential, limit time.Duration) (b lab.Balance) {
	t.Helper()
	labtest.Eventually(t, limit, "nothing is held", func() (err error) {
		if b, err = g.TryBalance(k); err == nil && b.Held != 0 {
			err = fmt.Errorf("%d msat are held", b.Held)
		}
		return err
	})
	return b
}

// Charges are all of the account's charges by request.
func (g *Gateway) Charges(t testing.TB, k Credential) map[string]lab.Charge {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := g.Server.Charges(ctx, k.Header())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]lab.Charge{}
	for _, c := range list {
		all[c.Request] = c
	}
	return all
}

// msat reads an amount from a header or a trailer, −1 when there is none.
func (a *Answer) msat(name string) int64 {
	n, err := a.Msat(name)
	if err != nil {
		return -1
	}
	return n
}
