package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
	"sluice.example/sluice/pricing"
)

// crowd is how many agents come in the surge, crowdGap after each other. Each has crowdStreams
// streams. Together they want more than twice as many slots as there are.
const (
	crowd        = 4
	crowdStreams = 35
	crowdGap     = 1200 * time.Millisecond
	// An answer has between shortest and longest tokens, which takes three to six seconds.
	shortest, longest = 128, 256
	// height is the price multiplier at which the story shows what each buyer pays.
	height = 1.5
	// surgeLimit is how long the whole surge may take, also on a slow machine.
	surgeLimit = 90 * time.Second
)

// surge fills the slots and shows what that does to the price and to the buyers.
func (d *demo) surge(ctx context.Context, first *agent) error {
	d.story.chapter("A surge: the price follows the GPU")
	if d.exporter != nil {
		d.story.say("This GPU is simulated: a stand-in for NVIDIA's library says what one would do under the inference server's load.")
		d.story.say("Exporter, gateway and price controller take it as they take a real one.")
	}
	d.story.say("%d agents come, one after another, with %d streams each:", crowd, crowdStreams)
	ctx, cancel := context.WithTimeout(ctx, surgeLimit)
	defer cancel()
	ended := make(chan error, 2) // one error of the crowd, one of atTheHeight
	if err := d.gather(ctx, ended); err != nil {
		return fmt.Errorf("surge: %w", err)
	}
	thrifty, err := d.newThrifty(ctx)
	if err != nil {
		return fmt.Errorf("surge: %w", err)
	}
	err = d.watch(ctx, ended, func() { ended <- d.atTheHeight(ctx, first, thrifty) })
	if err != nil {
		return fmt.Errorf("surge: %w", err)
	}
	d.story.say("The price is back at its floor. Agent %d asks again, with the same limit:", thrifty.number)
	got, err := thrifty.ask(ctx, thrifty.question)
	if err != nil {
		return fmt.Errorf("after the surge: %w", err)
	}
	return d.account(got)
}

// gather starts the crowd.
func (d *demo) gather(ctx context.Context, ended chan<- error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range crowd {
		a, err := d.newAgent()
		if err != nil {
			return err
		}
		group.Go(func() error {
			select {
			case <-time.After(time.Duration(i) * crowdGap):
				return a.takeStreams(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	go func() { ended <- group.Wait() }()
	return nil
}

// takeStreams pays once for all of the agent's streams and then requests them. The payment locks
// the present price for them.
func (a *agent) takeStreams(ctx context.Context) error {
	each, err := a.quote(ctx, longest)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	take := func(i int) {
		group.Go(func() error {
			return a.drain(ctx, question{
				prompt: "Tell me about the river.", maxTokens: shortest + i*37%(longest-shortest+1), stream: true, full: true,
				header: http.Header{"L402-Deposit-Msat": {strconv.FormatInt(int64(crowdStreams*each), 10)}},
			})
		})
	}
	take(0)
	select {
	case <-a.bought:
	case <-ctx.Done(): // the first stream failed, and the others will fail too
	}
	for i := 1; i < crowdStreams; i++ {
		take(i)
	}
	return group.Wait()
}

// drain reads a stream and drops the text.
func (a *agent) drain(ctx context.Context, q question) error {
	resp, err := a.post(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var scan client.CostScanner
	if _, err := io.Copy(&scan, resp.Body); err != nil {
		return err
	}
	if scan.Charge().Cost == nil {
		return errors.New("a stream ended without its cost")
	}
	return nil
}

// promptBound is more tokens than any prompt of the surge has.
const promptBound = 150

// quote returns what a short question costs at most, in msat at the present price.
func (a *agent) quote(ctx context.Context, maxTokens int) (l402.Msat, error) {
	text, err := a.sdk.Quote(ctx, a.url, url.Values{"model": {model}, "input_tokens": {strconv.Itoa(promptBound)}, "max_tokens": {strconv.Itoa(maxTokens)}})
	if err != nil {
		return 0, err
	}
	var q pricing.Quote
	return q.Bound, json.Unmarshal(text, &q)
}

// thrifty is an agent that pays at most what its question costs at the floor price.
type thrifty struct {
	*agent
	limit    l402.Msat
	question question
}

func (d *demo) newThrifty(ctx context.Context) (*thrifty, error) {
	a, err := d.newAgent()
	if err != nil {
		return nil, err
	}
	t := &thrifty{agent: a, question: question{prompt: "What is a weir?", maxTokens: 64}}
	if t.limit, err = rateCard().Cost(pricing.Units{pricing.InputTokens: promptBound, pricing.OutputTokens: int64(t.question.maxTokens)}); err != nil {
		return nil, err
	}
	t.question.header = http.Header{"L402-Max-Cost-Msat": {strconv.FormatInt(int64(t.limit), 10)}}
	return t, nil
}

// problem is the part of a refusal that the story shows.
type problem struct {
	Required   l402.Msat     `json:"required_msat"`
	Rates      pricing.Rates `json:"rates"`
	Epoch      int64         `json:"price_epoch"`
	Multiplier float64       `json:"multiplier"`
	BoundBy    string        `json:"bound_by"`
}

// refusal reads the problem document of a refused request. It fails when err is not a refusal with
// this status.
func refusal(err error, status int) (p problem, _ error) {
	var r *refused
	if !errors.As(err, &r) || r.status != status {
		return p, fmt.Errorf("status %d was due: %w", status, err)
	}
	return p, json.Unmarshal(r.body, &p)
}

// atTheHeight shows what the surge means for a new caller, for a caller with a cost limit, and for
// the first agent, whose payment has locked its price.
func (d *demo) atTheHeight(ctx context.Context, first *agent, thrifty *thrifty) error {
	short := question{prompt: "What is a mill pond?", maxTokens: 32}
	_, err := post(ctx, http.DefaultClient, d.gatewayURL(), short)
	p, err := refusal(err, http.StatusPaymentRequired)
	if err != nil {
		return fmt.Errorf("a new caller: %w", err)
	}
	d.story.say("a new caller's 402: %s msat per token, price epoch %d", perToken(p.Rates), p.Epoch)
	_, err = thrifty.ask(ctx, thrifty.question)
	if p, err = refusal(err, http.StatusPreconditionFailed); err != nil {
		return fmt.Errorf("an agent with a limit: %w", err)
	}
	d.story.say("agent %d sends L402-Max-Cost-Msat: %d and gets a 412: up to %d msat now; nothing charged", thrifty.number, thrifty.limit, p.Required)
	got, err := first.ask(ctx, short)
	if err != nil {
		return fmt.Errorf("the first agent: %w", err)
	}
	d.story.say("the first agent's payment has locked its quote, price epoch %s:", got.epoch)
	return d.account(got)
}

// perToken returns the rates in msat for one token of the prompt and one token of the answer.
func perToken(r pricing.Rates) string {
	return fmt.Sprintf("%.2f + %.2f", float64(r[pricing.InputTokens])/1e6, float64(r[pricing.OutputTokens])/1e6)
}

// watch prints GPU, queue and price every second until the surge is over and the price is back at
// its floor. It calls atHeight in the background once the price is high.
func (d *demo) watch(ctx context.Context, ended <-chan error, atHeight func()) error {
	d.story.say("time  GPU busy   SMs  running  waiting  signal   price   msat per token  bound by")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for began, risen, open := time.Now(), false, 2; ; {
		now, err := d.look(ctx)
		if err != nil {
			return err
		}
		d.story.say("%3.0f s  %8s  %5s  %7.0f  %7.0f  %6.2f   ×%.2f  %15s  %s", time.Since(began).Seconds(), percent(now.Load.Utilization), percent(now.Load.SM),
			now.Load.Running, now.Load.Waiting, now.Standing.Signal, now.Price.Multiplier, perToken(now.Price.Rates), now.Standing.BoundBy)
		if !risen && now.Price.Multiplier >= height {
			risen = true
			go atHeight()
		}
		if open == 0 && now.Price.Rates == rateCard() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		for ; len(ended) > 0; open-- {
			if err := <-ended; err != nil {
				return err
			}
			if !risen {
				return errors.New("the price did not rise")
			}
		}
	}
}

// moment is what the gateway's operator API says at one moment.
type moment struct {
	Load struct {
		Running     float64  `json:"running"`
		Waiting     float64  `json:"waiting"`
		SM          *float64 `json:"sm_utilization"`
		Utilization *float64 `json:"utilization"`
	} `json:"load"`
	Price    pricing.Epoch    `json:"price"`
	Standing pricing.Standing `json:"standing"`
}

// percent returns a share as a percentage. It returns "-" for nil, which means that the share is
// not known.
func percent(share *float64) string {
	if share == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100**share)
}

func (d *demo) look(ctx context.Context) (m moment, err error) {
	var fleet struct {
		Pools []json.RawMessage `json:"pools"`
	}
	var prices struct {
		Models map[string]json.RawMessage `json:"models"`
	}
	if err = errors.Join(d.operator(ctx, "/admin/backends", &fleet), d.operator(ctx, "/admin/prices", &prices)); err != nil {
		return m, err
	}
	if len(fleet.Pools) != 1 {
		return m, fmt.Errorf("the gateway has %d pools", len(fleet.Pools))
	}
	return m, errors.Join(json.Unmarshal(fleet.Pools[0], &m), json.Unmarshal(prices.Models[model], &m))
}
