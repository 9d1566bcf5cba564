package config

import "testing"

// A model that is sold only through APIs that generate nothing needs no cap of completion tokens.
func TestModelsThatWriteNothing(t *testing.T) {
	cfg := load(t, "testdata/vectors.good.yml", nil)
	for _, m := range cfg.Services[0].Models {
		if m.MaxCompletionTokens != 0 {
			t.Errorf("%s may write %d tokens", m.Name, m.MaxCompletionTokens)
		}
	}
}
