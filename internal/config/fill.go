package config

import (
	"errors"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/internal/placeholder"
)

// filling is what environment variables put into a file's values.
type filling struct {
	getenv func(string) string
	raw    map[string]string // path of a key → its value as the file writes it
	values []filled
}

type filled struct{ raw, value string }

// shortSecret is a length in bytes. scrub does not replace a shorter value from the environment,
// because a secret is longer, and a value such as "8" occurs in many error texts.
const shortSecret = 6

// fill returns a scalar's value with its environment variables filled in. It does not change a hook's
// command, because the command may be a shell's, and the shell fills in its own variables.
func (d *decoder) fill(n *yaml.Node, key string) (text string, ok bool) {
	if n.Tag == placeholder.Literal || strings.Contains(key, ".hook.command[") {
		return n.Value, true
	}
	text, values, err := placeholder.Fill(n.Value, d.getenv)
	switch {
	case errors.Is(err, placeholder.ErrForm):
		d.fail(n.Line, key, "%v; a secret can be given by its file or its environment variable as well", err)
		return "", false
	case err != nil:
		d.fail(n.Line, key, "%v", err)
		return "", false
	}
	if len(values) > 0 {
		d.raw[key] = n.Value
		d.values = append(d.values, filled{n.Value, text})
		for _, v := range values {
			d.values = append(d.values, filled{n.Value, v})
		}
	}
	return text, true
}

// scrub replaces each value from the environment by the file's own text, because the value may be a
// secret. It also replaces the first bytes of a long value, because errors quote long values in that
// form.
func (f *filling) scrub(text string) string {
	for _, v := range f.values {
		if len(v.value) < shortSecret {
			continue
		}
		for _, form := range []string{v.value, clip(v.value)} {
			quoted := strconv.Quote(form)
			text = strings.ReplaceAll(text, quoted[1:len(quoted)-1], v.raw)
			text = strings.ReplaceAll(text, form, v.raw)
		}
	}
	return text
}
