package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
)

// laboratory is a gateway before an inference server that misbehaves as the
// request header X-Fault says, and that keeps a record of what it really did.
type laboratory struct {
	*own
	server *inference.Server
	end    context.CancelFunc
	cases  atomic.Int64
}

// imageTokens is what an image costs at the lab's inference server, in prompt
// tokens that no text shows.
const imageTokens = 300

// labTokensPerSecond is the pace of the lab's inference server.
const labTokensPerSecond = 100

// The lab's models are all the same one; they differ in how its tokens can be
// counted: running has a usage in every event, tokenizer a /tokenize, plain
// neither. liar is as running, for the tests that read its metrics.
const saleOfLab = `    models:
      - {name: running, backends: [running], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, cached_input: 500 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: plain, backends: [plain], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: tokenizer, backends: [tokenizer], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: liar, backends: [liar], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: slow, backends: [slow], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: gone, backends: [gone], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: half-gone, backends: [gone, running], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
  - name: fee
    hosts: [fee.test]
    min_purchase: 4 sat
    max_purchase: 10000 sat
    charge_call_on_4xx: true
    forward_headers: [X-Fault, X-Case]
    models:
      - {name: fee, backends: [running], context_tokens: 4096, max_completion_tokens: 256, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok, call: 70 msat}}
backends:
  - {name: running, url: «BACKEND», slots: 64, continuous_usage: true, models: {running: demo, half-gone: demo, fee: demo}, health: {path: ""}}
  - {name: plain, url: «BACKEND», slots: 64, models: {plain: demo}, health: {path: ""}}
  - {name: tokenizer, url: «BACKEND», slots: 64, tokenize: true, models: {tokenizer: demo}, health: {path: ""}}
  - {name: liar, url: «BACKEND», slots: 64, continuous_usage: true, models: {liar: demo}, health: {path: ""}}
  - {name: slow, url: «BACKEND», slots: 64, models: {slow: demo}, timeouts: {first_byte: 400ms}, health: {path: ""}}
  - {name: gone, url: "http://127.0.0.1:1", slots: 64, models: {gone: demo, half-gone: demo}, health: {path: ""}}
`

// startLab starts both; it serves until close.
func startLab(dir string) (*laboratory, error) {
	ctx, end := context.WithCancel(context.Background())
	server, url, err := startInference(ctx, inference.Config{
		Model: "demo", TokensPerSecond: labTokensPerSecond, MaxModelLen: 4096, ImageTokens: imageTokens, Seed: 7, Record: true, AllowFaults: true,
	})
	if err != nil {
		end()
		return nil, err
	}
	s := newSetup(dir)
	s.BackendURL, s.Sale = url, saleOfLab
	g, err := serve(s)
	if err != nil {
		end()
		return nil, fmt.Errorf("start the lab: %w", err)
	}
	return &laboratory{own: g, server: server, end: end}, nil
}

// close ends both and checks the lab's books and its log.
func (l *laboratory) close() error {
	defer l.end()
	return errors.Join(l.stop(), named("verify the lab's ledger", verifyLedger(l.config)), l.discreet())
}

// discreet looks for secrets in the log.
func (l *laboratory) discreet() error {
	log, err := os.ReadFile(filepath.Join(l.Dir, "gateway.log"))
	if err != nil {
		return err
	}
	if len(log) == 0 {
		return errors.New("the lab's gateway has logged nothing")
	}
	for _, secret := range append(agent.secrets(), l.Token, l.Keys[0].Secret) {
		if strings.Contains(string(log), secret) {
			return fmt.Errorf("the gateway's log holds a secret: %.12s…", secret)
		}
	}
	return nil
}

// caseHeader names one request, so that its record is found among those of the
// tests that run at the same time.
const caseHeader = "X-Case"

// newCase returns a fresh name.
func (l *laboratory) newCase() string { return "case-" + strconv.FormatInt(l.cases.Add(1), 10) }

// truth is what the inference server did for the case, once it is over. false:
// it never got the request.
func (l *laboratory) truth(t testing.TB, name string) (inference.Recorded, bool) {
	t.Helper()
	var found inference.Recorded
	got := false
	labtest.Eventually(t, patience, "the inference server ends "+name, func() error {
		for _, r := range l.server.Requests() {
			if r.Header.Get(caseHeader) == name && r.Path == chatPath {
				found, got = r, true
			}
		}
		if got && found.Outcome == "running" {
			return errors.New("it is still running")
		}
		return nil
	})
	return found, got
}

// ask is one chat with the lab: model, the fault and more members of the body.
type ask struct {
	model, fault string
	members      []string
	headers      []string
}

// body is the JSON to send.
func (q ask) body() string { return chat(append([]string{"model", quoted(q.model)}, q.members...)...) }

// more are the headers besides the credential.
func (q ask) more(name string) []string {
	h := append([]string{caseHeader, name}, q.headers...)
	if q.fault != "" {
		h = append(h, "X-Fault", q.fault)
	}
	return h
}

// outcome is everything that is known about one chat with the lab.
type outcome struct {
	answer *answer            // of one that is no stream
	ended  ended              // of a stream
	charge charge             // what was charged
	truth  inference.Recorded // what was really done
}

// run makes one chat with an account of its own and waits for its charge.
func (l *laboratory) run(t testing.TB, q ask, streamed bool) (o outcome, k credential) {
	t.Helper()
	k = l.buy(t, 20_000)
	name := l.newCase()
	request := ""
	if streamed {
		s, a := l.tryStream(t, q.body(), k.header(q.more(name)...))
		if a != nil {
			t.Fatalf("status %d instead of a stream:\n%s", a.status, a.body)
		}
		o.ended, request = s.rest(), s.requestID()
	} else {
		o.answer = l.post(t, q.body(), k.header(q.more(name)...))
		request = o.answer.header.Get("L402-Request-Id")
		if o.answer.status != 200 {
			t.Fatalf("status %d:\n%s", o.answer.status, o.answer.body)
		}
	}
	o.charge = l.entry(t, k, request)
	o.truth, _ = l.truth(t, name)
	if b := l.idle(t, k); b.Charged != o.charge.Charged {
		t.Errorf("the account was charged %d msat, its one request %d", b.Charged, o.charge.Charged)
	}
	return o, k
}

// wantPriced checks that a charge is its usage at the prices.
func wantPriced(t testing.TB, c charge) {
	t.Helper()
	if want := cost(c.Usage.Input, c.Usage.Output); c.Charged != want && c.Usage.Cached == 0 {
		t.Errorf("charged %d msat for %d + %d tokens, want %d", c.Charged, c.Usage.Input, c.Usage.Output, want)
	}
}

// wantExact checks a charge for exactly what the inference server did.
func (o outcome) wantExact(t testing.TB) {
	t.Helper()
	u := o.charge.Usage
	if u.Input != int64(o.truth.PromptTokens) || u.Output != int64(o.truth.CompletionTokens) {
		t.Errorf("charged for %d + %d tokens, the backend did %d + %d", u.Input, u.Output, o.truth.PromptTokens, o.truth.CompletionTokens)
	}
	wantPriced(t, o.charge)
}

// sentBody is the request as the backend got it.
func (o outcome) sentBody() string { return strings.TrimSpace(string(o.truth.Body)) }
