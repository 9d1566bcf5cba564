package placeholder

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFill(t *testing.T) {
	env := map[string]string{"KEY": "s3cret", "a_1": "x", "DOLLAR": "pa$WORD ${KEY}"}
	getenv := func(name string) string { return env[name] }
	for _, c := range []struct {
		text, want string
		filled     []string
	}{
		{"plain", "plain", nil},
		{"${KEY}", "s3cret", []string{"s3cret"}},
		{"sk-${KEY}-${a_1}", "sk-s3cret-x", []string{"s3cret", "x"}},
		{"$${KEY}", "${KEY}", nil},
		{"a$${KEY}b${a_1}", "a${KEY}bx", []string{"x"}},
		{"${DOLLAR}", "pa$WORD ${KEY}", []string{"pa$WORD ${KEY}"}}, // a filled-in value is not searched again
		{"costs-$5-and-${more", "costs-$5-and-${more", nil},
		{"pa$$word-100%", "pa$$word-100%", nil},
	} {
		got, filled, err := Fill(c.text, getenv)
		if err != nil || got != c.want || !slices.Equal(filled, c.filled) {
			t.Errorf("%q is %q (%q), %v; want %q (%q)", c.text, got, filled, err, c.want, c.filled)
		}
	}
	for _, text := range []string{"${KEY:-x}", "${}", "${1A}", "$KEY", "%KEY%", "$(cat key)", "{{ .key }}", "${KEY}$KEY", "$${KEY} $KEY", "${K Y}"} {
		if _, _, err := Fill(text, getenv); !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v, want a refusal of its form", text, err)
		}
	}
	if _, _, err := Fill("sk-${MISSING}", getenv); err == nil || !strings.Contains(err.Error(), "variable MISSING") {
		t.Errorf("a missing variable: %v", err)
	}
}

func FuzzFill(f *testing.F) {
	f.Add("a$${KEY}b${KEY}")
	f.Add("${${KEY}}")
	f.Fuzz(func(t *testing.T, text string) {
		out, filled, err := Fill(text, func(string) string { return "v" })
		if err == nil && len(filled) == 0 && !strings.Contains(text, "$${") && out != text {
			t.Errorf("%q became %q", text, out)
		}
	})
}
