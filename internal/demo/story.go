package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// story prints what happens in the demo, for people to read.
type story struct {
	mu  sync.Mutex // guards each line
	out io.Writer
}

func newStory(out io.Writer) *story {
	if out == nil {
		out = io.Discard
	}
	return &story{out: out}
}

func (s *story) chapter(title string) { s.print("\n== %s\n", title) }

func (s *story) say(format string, args ...any) { s.print("   "+format+"\n", args...) }

func (s *story) print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

// Write prints p line by line, indented. Other packages write their progress to it.
func (s *story) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		s.say("%s", strings.TrimSuffix(line, "\n"))
	}
	return len(p), nil
}

// books is what the channel and the ledger say about the same money, in msat.
type books struct {
	gateway, agent     l402.Msat // in the channel, on the side of each node
	deposited, charged l402.Msat // in the ledger
	available, held    l402.Msat
}

// tell makes an agent buy, and compares the books before and after.
func (d *demo) tell(ctx context.Context) error {
	if err := d.openWallet(); err != nil {
		return err
	}
	defer d.wallet.Close()
	a, err := d.newAgent()
	if err != nil {
		return err
	}
	before, err := d.readBooks(ctx)
	if err != nil {
		return err
	}
	for _, scene := range []func(context.Context, *agent) error{d.firstCall, d.streamedCall, d.embed, d.hangUp, d.change, d.surge, d.topUp} {
		if err := scene(ctx, a); err != nil {
			return err
		}
	}
	if err := d.compare(ctx, before); err != nil {
		return err
	}
	return d.verify(ctx)
}

// firstCall gets a 402, pays it and gets its answer.
func (d *demo) firstCall(ctx context.Context, a *agent) error {
	d.story.chapter("An agent without an account asks the model")
	d.story.say("POST /v1/chat/completions, without a credential")
	got, err := a.ask(ctx, question{prompt: "What does a sluice do?", maxTokens: 32})
	if err != nil {
		return fmt.Errorf("first call: %w", err)
	}
	d.story.say("answer: %s", oneLine(got.text))
	return d.account(got)
}

// rateCard returns the floor prices of gatewayConfig.
func rateCard() pricing.Rates {
	return pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 4_000_000}
}

// account prints what an answer cost. It fails when the cost is not the price of the rate card.
func (d *demo) account(got answer) error {
	want, err := rateCard().Cost(pricing.Units{pricing.InputTokens: got.prompt, pricing.OutputTokens: got.completion})
	if err != nil {
		return err
	}
	d.story.say("%d prompt tokens × 1 msat + %d completion tokens × 4 msat = %d msat; charged %d msat; balance %d msat",
		got.prompt, got.completion, want, got.cost, got.balance)
	if want != got.cost {
		return fmt.Errorf("charged %s for what costs %s", got.cost, want)
	}
	return nil
}

// streamedCall streams an answer, paid by the same payment.
func (d *demo) streamedCall(ctx context.Context, a *agent) error {
	d.story.chapter("It streams an answer, from the same payment")
	d.story.print("   ")
	got, err := a.stream(ctx, "Tell me about the mill and the river.", 64, 0, func(text string) {
		d.story.print("%s", strings.ReplaceAll(text, "\n", " "))
	})
	d.story.print("\n")
	if err != nil {
		return fmt.Errorf("streamed call: %w", err)
	}
	d.story.say("%d events, the first after %s, all in %s", got.events, got.first.Round(time.Millisecond), got.took.Round(time.Millisecond))
	return d.account(got)
}

// hangUp closes the connection in the middle of a stream.
func (d *demo) hangUp(ctx context.Context, a *agent) error {
	d.story.chapter("It hangs up in the middle of a stream")
	const events = 10
	got, err := a.stream(ctx, "Count the stones in the river.", 256, events, func(string) {})
	if err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	charge, err := a.charge(ctx, got.request)
	if err != nil {
		return err
	}
	d.story.say("gone after %d events of at most 256 tokens; the gateway stopped the model and charged what it had delivered:", events)
	d.story.say("%d prompt + %d completion tokens, %d msat (%s, counted from %s)",
		charge.Usage.Input, charge.Usage.Output, charge.Charged, charge.Outcome, charge.Source)
	return nil
}

// topUp adds credit to the agent's account.
func (d *demo) topUp(ctx context.Context, a *agent) error {
	d.story.chapter("It tops up its account")
	bought, balance, err := a.sdk.TopUp(ctx, d.gatewayURL(), 10_000)
	if err != nil {
		return fmt.Errorf("top-up: %w", err)
	}
	a.spent(bought)
	d.story.say("same token id %s…, balance %d msat", balance.Account[:16], balance.Available)
	if balance.Account != a.account {
		return fmt.Errorf("the top-up went to account %s instead of %s", balance.Account, a.account)
	}
	return nil
}

// compare shows that the amounts in the ledger equal the amounts that moved on the channel.
func (d *demo) compare(ctx context.Context, before books) error {
	d.story.chapter("The books, compared")
	paid, fees := d.spending()
	after, err := d.settledBooks(ctx, before, paid)
	if err != nil {
		return err
	}
	received := after.gateway - before.gateway
	deposited, charged := after.deposited-before.deposited, after.charged-before.charged
	left := after.available + after.held - before.available - before.held
	d.story.say("the agents' wallet paid       %8d msat and %d msat of routing fees", paid, fees)
	d.story.say("the gateway's channel gained  %8d msat", received)
	d.story.say("the ledger credited           %8d msat", deposited)
	d.story.say("           charged            %8d msat", charged)
	d.story.say("           owes               %8d msat of balance", left)
	if received != paid || deposited != received || charged+left != deposited {
		return fmt.Errorf("the books differ: paid %d, received %d, credited %d, charged %d, left %d msat",
			paid, received, deposited, charged, left)
	}
	d.story.say("they agree to the msat")
	return nil
}

// settledBooks reads the books once the last payment is no longer pending in the channel and the
// gateway has added up its accounts again. The other node needs a moment for the first. The gateway
// does the second at least every ten seconds.
func (d *demo) settledBooks(ctx context.Context, before books, paid l402.Msat) (books, error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		b, err := d.readBooks(ctx)
		if err != nil || b.gateway-before.gateway == paid && b.deposited-before.deposited == paid && b.held == before.held || time.Now().After(deadline) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return b, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *demo) readBooks(ctx context.Context) (b books, err error) {
	cfg, err := d.network.Gateway.AdminConfig()
	if err != nil {
		return b, err
	}
	lnd, err := lightning.Dial(cfg)
	if err != nil {
		return b, err
	}
	defer lnd.Close()
	channel, err := lnd.Balance(ctx)
	if err != nil {
		return b, err
	}
	b.gateway, b.agent = channel.Local, channel.Remote
	var status struct {
		Totals struct {
			Deposited l402.Msat `json:"deposited_msat"`
			Charged   l402.Msat `json:"charged_msat"`
			Available l402.Msat `json:"available_msat"`
			Held      l402.Msat `json:"held_msat"`
		} `json:"totals"`
	}
	if err := d.operator(ctx, "/admin/status", &status); err != nil {
		return b, err
	}
	t := status.Totals
	b.deposited, b.charged, b.available, b.held = t.Deposited, t.Charged, t.Available, t.Held
	return b, nil
}

// operator reads JSON from the operator's API of the first gateway.
func (d *demo) operator(ctx context.Context, path string, into any) error {
	a, err := d.replicas[0].Operator(ctx, http.MethodGet, path, "")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("read %s (status %d): %w", path, a.Status, err)
	}
	return nil
}

// verify runs the operator's check of the ledger.
func (d *demo) verify(ctx context.Context) error {
	d.story.chapter("gateway verify-ledger")
	out, err := d.replicas[0].VerifyLedger(ctx)
	io.WriteString(d.story, out)
	return err
}

// oneLine returns a text on one line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
