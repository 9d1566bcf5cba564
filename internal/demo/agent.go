package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/client"
	"sluice.example/sluice/l402/client/lndwallet"
)

// agent is one of the demo's buyers. It uses the SDK that any agent can embed, with an account of
// its own. All agents of the demo share one wallet.
type agent struct {
	story  *story
	number int
	url    string // of the gateway
	sdk    *client.Client
	http   *http.Client
	bought chan struct{} // closed after the first payment

	mu         sync.Mutex // guards the fields below, because payments are reported from inside requests
	paid, fees l402.Msat
	account    string
}

// openWallet connects to the lnd that all agents share.
func (d *demo) openWallet() error {
	cfg, err := d.network.Agent.AdminConfig()
	if err != nil {
		return err
	}
	d.wallet, err = lndwallet.Dial(lndwallet.Config{Address: cfg.Address, TLSCert: cfg.TLSCert, Macaroon: cfg.Macaroon})
	return err
}

// newAgent makes an agent that has no token yet.
func (d *demo) newAgent() (*agent, error) {
	a := &agent{story: d.story, number: len(d.agents) + 1, url: d.gatewayURL(), bought: make(chan struct{})}
	tokens := "tokens"
	if a.number > 1 {
		tokens = fmt.Sprintf("tokens_%d", a.number)
	}
	store, err := client.OpenDir(d.place.path(tokens))
	if err != nil {
		return nil, err
	}
	a.sdk, err = client.New(client.Config{
		Wallet: d.wallet, Store: store, Network: bolt11.Regtest,
		MaxPerRequest: 10_000_000, MaxFee: client.Fee{Base: 1000, PPM: 5000},
	})
	if err != nil {
		return nil, err
	}
	a.http = &http.Client{Transport: a.sdk}
	d.agents = append(d.agents, a)
	return a, nil
}

// spent records a payment.
func (a *agent) spent(p client.Purchase) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paid += p.Amount
	a.fees += p.Fee
	first := a.account == ""
	if first {
		a.account = p.Token.ID.String()
		close(a.bought)
	}
	if a.number > 1 {
		a.story.say("agent %d paid %d msat over the channel, which locks the price it was quoted", a.number, p.Amount)
		return
	}
	if first {
		a.story.say("402 Payment Required: a macaroon and a Lightning invoice of %d msat", p.Amount)
	}
	a.story.say("paid %d msat over the channel (routing fee %d msat); token id %s…", p.Amount, p.Fee, a.account[:16])
}

// spending returns the sum of what all agents have paid so far.
func (d *demo) spending() (paid, fees l402.Msat) {
	for _, a := range d.agents {
		a.mu.Lock()
		paid, fees = paid+a.paid, fees+a.fees
		a.mu.Unlock()
	}
	return paid, fees
}

// question is one chat request.
type question struct {
	prompt    string
	maxTokens int
	stream    bool
	full      bool        // generate exactly maxTokens tokens
	header    http.Header // further headers of the request
}

// body returns the request as JSON.
func (q question) body() ([]byte, error) {
	request := map[string]any{
		"model": model, "max_tokens": q.maxTokens, "seed": 7, "temperature": 0.7,
		"messages": []map[string]string{{"role": "user", "content": q.prompt}},
	}
	if q.full {
		request["ignore_eos"] = true
	}
	if q.stream {
		request["stream"] = true
		request["stream_options"] = map[string]bool{"include_usage": true}
	}
	return json.Marshal(request)
}

// answer is the answer to one chat request, and its cost.
type answer struct {
	request            string // L402-Request-Id
	text               string
	prompt, completion int64
	cost, balance      l402.Msat
	epoch              string // L402-Price-Epoch
	events             int
	first, took        time.Duration
}

// ask makes a unary call.
func (a *agent) ask(ctx context.Context, q question) (answer, error) {
	resp, err := a.post(ctx, q)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var body struct {
		Choices []struct{ Message struct{ Content string } }
		Usage   usage
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || len(body.Choices) == 0 {
		return answer{}, fmt.Errorf("read answer: %d choices: %w", len(body.Choices), err)
	}
	got := answer{text: body.Choices[0].Message.Content, prompt: body.Usage.Prompt, completion: body.Usage.Completion,
		epoch: resp.Header.Get("L402-Price-Epoch")}
	return got, got.charged(client.Cost(resp))
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
}

// stream makes a streamed call and calls onText with each piece of text. After hangUp events with
// text it closes the connection. A hangUp of 0 means that it reads to the end.
func (a *agent) stream(ctx context.Context, prompt string, maxTokens, hangUp int, onText func(string)) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	resp, err := a.post(ctx, question{prompt: prompt, maxTokens: maxTokens, stream: true})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got := answer{request: resp.Header.Get("L402-Request-Id")}
	charge := client.Cost(resp)
	for events := client.NewEventReader(resp.Body); ; {
		event, err := events.Next()
		if errors.Is(err, io.EOF) {
			got.took = time.Since(begin)
			return got, got.charged(charge)
		}
		if err != nil {
			return got, err
		}
		for _, comment := range event.Comments {
			if c, ok := client.ParseCostComment([]byte(comment)); ok {
				charge = charge.Merge(c)
			}
		}
		text, u, ok := chunk(event.Data)
		if u != nil {
			got.prompt, got.completion = u.Prompt, u.Completion
		}
		if !ok {
			continue
		}
		if got.events++; got.events == 1 {
			got.first = time.Since(begin)
		}
		onText(text)
		if got.events == hangUp {
			return got, nil
		}
	}
}

// chunk reads the data of one event. ok reports whether the event has text.
func chunk(data []byte) (text string, u *usage, ok bool) {
	var event struct {
		Choices []struct{ Delta struct{ Content string } }
		Usage   *usage
	}
	if json.Unmarshal(data, &event) != nil { // [DONE], or an event that has only a comment
		return "", nil, false
	}
	if len(event.Choices) > 0 {
		text = event.Choices[0].Delta.Content
	}
	return text, event.Usage, text != ""
}

// charged stores what the gateway said about the price in got.
func (got *answer) charged(c client.Charge) error {
	if c.Cost == nil || c.Balance == nil {
		return errors.New("the gateway did not say what the answer cost")
	}
	got.cost, got.balance = *c.Cost, *c.Balance
	return nil
}

// refused is an answer with a status other than 200.
type refused struct {
	status int
	body   []byte
}

func (r *refused) Error() string {
	return fmt.Sprintf("the gateway answered %d %s: %s", r.status, http.StatusText(r.status), r.body)
}

// post sends one chat request and pays if it must. It fails with *refused for a status other than
// 200.
func (a *agent) post(ctx context.Context, q question) (*http.Response, error) {
	return post(client.WithPurchases(ctx, a.spent), a.http, a.url, q)
}

// post sends one chat request through an HTTP client.
func post(ctx context.Context, through *http.Client, url string, q question) (*http.Response, error) {
	body, err := q.body()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if q.header != nil {
		req.Header = q.header.Clone()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := through.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return nil, errors.Join(&refused{resp.StatusCode, text}, err)
	}
	return resp, nil
}

// charge waits until the ledger has the entry of a request, and returns the entry.
func (a *agent) charge(ctx context.Context, request string) (lab.Charge, error) {
	ctx, cancel := context.WithTimeout(client.WithoutPaying(ctx), 10*time.Second)
	defer cancel()
	gateway := &lab.Gateway{URL: a.url, HTTP: a.http} // the SDK adds the credential
	for {
		charges, err := gateway.Charges(ctx, nil)
		if err != nil {
			return lab.Charge{}, err
		}
		if i := slices.IndexFunc(charges, func(c lab.Charge) bool { return c.Request == request }); i >= 0 {
			return charges[i], nil
		}
		select {
		case <-ctx.Done():
			return lab.Charge{}, fmt.Errorf("no charge for request %s: %w", request, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
