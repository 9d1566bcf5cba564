package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"sluice.example/sluice/pricing"
)

// usualOutput and otherOutput are the price of an answer's tokens in the configuration: usualOutput
// at first, otherOutput for a short time.
const (
	usualOutput = "output: 4000 sat/Mtok"
	otherOutput = "output: 5000 sat/Mtok"
)

// change makes the owner change the price while an answer streams.
func (d *demo) change(ctx context.Context, a *agent) error {
	d.story.chapter("The owner changes the price while an answer streams")
	var changing error
	changed := false
	got, err := a.stream(ctx, "Tell me how the price of water is set.", 64, 0, func(string) {
		if !changed {
			changed, changing = true, d.reprice(ctx, usualOutput, otherOutput)
		}
	})
	if err != nil {
		return fmt.Errorf("change the price: %w", err)
	}
	if changing != nil {
		return changing
	}
	d.story.say("the stream goes on, and costs what it began with:")
	if err := d.account(got); err != nil {
		return err
	}
	rates, err := d.rates(ctx)
	if err != nil {
		return err
	}
	if rates[pricing.OutputTokens] != rateCard()[pricing.OutputTokens]/4*5 {
		return fmt.Errorf("a completion token costs %d msat/Mtok after the change", rates[pricing.OutputTokens])
	}
	d.story.say("whoever asks now is quoted %d msat for a completion token. The owner takes it back:", rates[pricing.OutputTokens]/1_000_000)
	return d.reprice(ctx, otherOutput, usualOutput)
}

// reprice edits the configuration of every gateway and makes the gateway read it again.
func (d *demo) reprice(ctx context.Context, from, to string) error {
	for _, r := range d.replicas {
		path := r.Config
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, d.cfg.Gateway, "reload", "--config", path).CombinedOutput()
		d.story.say("$ gateway reload --config %s", r.Name+".yaml")
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "warning:") {
				d.story.say("  %s", strings.TrimSuffix(line, "\n"))
			}
		}
		if err != nil {
			return fmt.Errorf("gateway reload: %w", err)
		}
	}
	return nil
}

// rates returns the price in force.
func (d *demo) rates(ctx context.Context) (pricing.Rates, error) {
	var list struct {
		Models map[string]struct{ Price pricing.Epoch }
	}
	if err := d.operator(ctx, "/admin/prices", &list); err != nil {
		return pricing.Rates{}, err
	}
	return list.Models[model].Price.Rates, nil
}
