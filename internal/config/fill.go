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
	raw    map[string]string // path of a key → its value as the file has it
	values []filled
}

type filled struct{ raw, value string }

// shortSecret is the length in bytes below which a value from the environment is not
// looked for in errors: no secret is as short, and "8" is in many a sentence.
const shortSecret = 6

// fill returns a scalar's value with its environment variables filled in. A hook's
// command may be a shell's, which fills in its own.
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

// scrub puts the file's own text in the place of what came from the environment, which
// may be a secret. Errors quote the first bytes of long values.
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
