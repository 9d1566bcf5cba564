package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/internal/lightning"
	"sluice/l402"
	"sluice/l402/client"
	"sluice/l402/client/lndwallet"
)

// agent is the demo's buyer: a wallet and the SDK that any agent can embed.
type agent struct {
	story *story
	url   string // of the gateway
	node  *lightning.Client
	sdk   *client.Client
	http  *http.Client

	mu         sync.Mutex // guards what follows: payments are reported from inside requests
	paid, fees l402.Msat
	account    string
}

// newAgent connects the agent to its own lnd.
func (d *demo) newAgent() (*agent, error) {
	cfg, err := d.network.Agent.AdminConfig()
	if err != nil {
		return nil, err
	}
	node, err := lightning.Dial(cfg)
	if err != nil {
		return nil, err
	}
	store, err := client.OpenDir(d.place.path("tokens"))
	if err != nil {
		return nil, err
	}
	sdk, err := client.New(client.Config{
		Wallet: lndwallet.New(node), Store: store, Network: client.Regtest,
		MaxPerRequest: 10_000_000, MaxFee: client.Fee{Base: 1000, PPM: 5000},
	})
	if err != nil {
		return nil, err
	}
	return &agent{story: d.story, url: d.gatewayURL(), node: node, sdk: sdk, http: &http.Client{Transport: sdk}}, nil
}

func (a *agent) close() { a.node.Close() }

// spent takes note of a payment.
func (a *agent) spent(p client.Purchase) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paid += p.Amount
	a.fees += p.Fee
	if a.account == "" {
		a.account = p.Token.ID.String()
		a.story.say("402 Payment Required: a macaroon and a Lightning invoice of %d msat", p.Amount)
	}
	a.story.say("paid %d msat over the channel (routing fee %d msat); token id %s…", p.Amount, p.Fee, p.Token.ID.String()[:16])
}

// answer is what came back for one chat, and what it cost.
type answer struct {
	request            string // L402-Request-Id
	text               string
	prompt, completion int64
	cost, balance      l402.Msat
	events             int
	first, took        time.Duration
}

// ask makes a unary call.
func (a *agent) ask(ctx context.Context, prompt string, maxTokens int) (answer, error) {
	resp, err := a.post(ctx, prompt, maxTokens, false)
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
	got := answer{text: body.Choices[0].Message.Content, prompt: body.Usage.Prompt, completion: body.Usage.Completion}
	return got, got.charged(client.Cost(resp))
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
}

// stream makes a streamed call and hands every piece of text to onText. After
// hangUp events with text (0: never) it closes the connection.
func (a *agent) stream(ctx context.Context, prompt string, maxTokens, hangUp int, onText func(string)) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	resp, err := a.post(ctx, prompt, maxTokens, true)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got := answer{request: resp.Header.Get("L402-Request-Id")}
	charge := client.Cost(resp)
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			got.took = time.Since(begin)
			return got, got.charged(charge)
		}
		if err != nil {
			return got, err
		}
		if c, ok := client.ParseCostComment([]byte(line)); ok {
			charge = charge.Merge(c)
		}
		text, u, ok := chunk(line)
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

// chunk reads one line of an event stream; ok says that it holds text.
func chunk(line string) (text string, u *usage, ok bool) {
	data, found := strings.CutPrefix(strings.TrimSpace(line), "data: ")
	if !found || data == "[DONE]" {
		return "", nil, false
	}
	var event struct {
		Choices []struct{ Delta struct{ Content string } }
		Usage   *usage
	}
	if json.Unmarshal([]byte(data), &event) != nil {
		return "", nil, false
	}
	if len(event.Choices) > 0 {
		text = event.Choices[0].Delta.Content
	}
	return text, event.Usage, text != ""
}

// charged fills in what the gateway said about the price.
func (got *answer) charged(c client.Charge) error {
	if c.Cost == nil || c.Balance == nil {
		return errors.New("the gateway did not say what the answer cost")
	}
	got.cost, got.balance = *c.Cost, *c.Balance
	return nil
}

// post sends one chat request and pays if it must.
func (a *agent) post(ctx context.Context, prompt string, maxTokens int, stream bool) (*http.Response, error) {
	request := map[string]any{
		"model": model, "max_tokens": maxTokens, "seed": 7, "temperature": 0.7,
		"messages": []map[string]string{{"role": "user", "content": prompt}},
	}
	if stream {
		request["stream"] = true
		request["stream_options"] = map[string]bool{"include_usage": true}
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx = client.WithPurchases(ctx, a.spent)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return nil, errors.Join(fmt.Errorf("the gateway answered %s: %s", resp.Status, text), err)
	}
	return resp, nil
}

// entry is one row of /l402/usage, as far as the story tells it.
type entry struct {
	Request string `json:"request_id"`
	Usage   struct {
		InputTokens  int64 `json:"input_tokens"`
		OutputTokens int64 `json:"output_tokens"`
	} `json:"usage"`
	Source  string    `json:"source"`
	Outcome string    `json:"outcome"`
	Charged l402.Msat `json:"charged_msat"`
}

// charge waits for the ledger's entry of a request.
func (a *agent) charge(ctx context.Context, request string) (entry, error) {
	ctx, cancel := context.WithTimeout(client.WithoutPaying(ctx), 10*time.Second)
	defer cancel()
	for {
		found, err := a.lookUp(ctx, request)
		if err != nil || found != nil {
			if found == nil {
				found = &entry{}
			}
			return *found, err
		}
		select {
		case <-ctx.Done():
			return entry{}, fmt.Errorf("no charge for request %s: %w", request, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (a *agent) lookUp(ctx context.Context, request string) (*entry, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/l402/usage", nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list struct {
		Charges []entry `json:"charges"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("read /l402/usage (%s): %w", resp.Status, err)
	}
	for i := range list.Charges {
		if list.Charges[i].Request == request {
			return &list.Charges[i], nil
		}
	}
	return nil, nil
}
