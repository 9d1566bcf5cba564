package conformance

import (
	"fmt"
	"testing"
)

// TestTextSDKs does what TestSDKs does for completions, with a text, a batch of texts, and tokens.
func TestTextSDKs(t *testing.T) {
	newest, oldest := buildGo(t, "go.mod"), buildGo(t, "old.mod")
	for _, s := range []struct {
		name, sdk string
		command   func(*testing.T) []string
	}{
		{"openai-go", "openai-go", func(*testing.T) []string { return newest }},
		{"openai-go before 3.43", "openai-go", func(*testing.T) []string { return oldest }},
		{"go-openai", "go-openai", func(*testing.T) []string { return newest }},
		{"openai-node", "openai-node", javascript},
	} {
		t.Run(s.name, func(t *testing.T) {
			p := newPlace(t)
			var jobs []job
			var wants []outcome
			for _, kind := range []string{"batch", "tokens", "one"} {
				for _, o := range outcomes {
					whole := o.raises == ""
					if o.lookup || o.prompt == doTool || o.name == "429" || kind != "one" && !whole || kind == "tokens" && s.sdk == "go-openai" {
						continue
					}
					for _, stream := range []bool{false, true} {
						if stream && !o.stream || !stream && !o.unary {
							continue
						}
						j := o.job(p, s.sdk, stream)
						j.Text, j.Name = kind, fmt.Sprintf("%s, %s", j.Name, kind)
						if jobs, wants = append(jobs, j), append(wants, o); kind == "batch" {
							wants[len(wants)-1].twice = true
						}
					}
				}
			}
			for i, r := range run(t, s.command(t), jobs) {
				wants[i].judge(t, s.sdk, r)
			}
		})
	}
}
