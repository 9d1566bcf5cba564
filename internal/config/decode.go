package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/internal/placeholder"
	"sluice.example/sluice/l402"
)

// Error is one thing that is wrong with a configuration.
type Error struct {
	Line   int    // line in the file; zero means no particular line
	Key    string // path of the key, for example services[0].models[1].prices
	Reason string
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	if e.Line > 0 {
		s = "line " + strconv.Itoa(e.Line) + ": " + s
	}
	return s
}

// maxNodes bounds the number of values in a file. Aliases count at each use, so that a few nested
// aliases cannot grow without end.
const maxNodes = 100_000

// decoder fills a Config from YAML nodes by the Config's yaml tags, and collects errors.
type decoder struct {
	filling
	errs  []*Error
	lines map[string]int // line of each key path in the file
	nodes int
	deep  bool // a value that is nested too deeply was reported
}

func (d *decoder) fail(line int, key, format string, args ...any) {
	d.errs = append(d.errs, &Error{Line: line, Key: key, Reason: fmt.Sprintf(format, args...)})
}

// document decodes the single document of data into v, which is a pointer to a struct.
func (d *decoder) document(data []byte, v any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("want one YAML document, there is more after it")
	}
	d.value(doc.Content[0], "", reflect.ValueOf(v).Elem(), "")
	return nil
}

func (d *decoder) value(n *yaml.Node, key string, v reflect.Value, tag reflect.StructTag) {
	if d.nodes++; d.nodes == maxNodes {
		d.fail(n.Line, key, "the file has more than %d values", maxNodes)
	}
	if d.nodes >= maxNodes {
		return
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.lines[key] = n.Line
	if j, ok := v.Addr().Interface().(*JSON); ok {
		*j = d.json(n, key)
		return
	}
	text := n.Value
	if n.Kind == yaml.ScalarNode {
		var ok bool
		if text, ok = d.fill(n, key); !ok {
			return
		}
	}
	if e, ok := v.Addr().Interface().(*Engine); ok && n.Kind == yaml.ScalarNode {
		v = reflect.ValueOf(&e.Name).Elem()
	}
	if scalar, err := parse(text, v, tag); scalar {
		switch {
		case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
			d.fail(n.Line, key, "is %s, %s", kind(n), expected(v, tag))
		case err != nil:
			d.fail(n.Line, key, "%v%s", err, got(n.Value, v))
		}
		return
	}
	switch {
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct:
		d.optional(n, key, v)
	case v.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		d.mapping(n, key, v)
	case v.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		d.dictionary(n, key, v)
	case v.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		d.list(n, key, v)
	default:
		d.fail(n.Line, key, "is %s, %s", kind(n), expected(v, tag))
	}
}

// optional decodes a value that may be left out, which is a pointer to a struct.
func (d *decoder) optional(n *yaml.Node, key string, v reflect.Value) {
	element := reflect.New(v.Type().Elem())
	if e, ok := element.Interface().(interface{ setDefaults() }); ok {
		e.setDefaults()
	}
	d.value(n, key, element.Elem(), "")
	v.Set(element)
}

// keys calls use for each key of a mapping. It reports a key that is given twice, and calls use only
// for the first.
func (d *decoder) keys(n *yaml.Node, key string, use func(name, value *yaml.Node, path string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode {
			d.fail(name.Line, key, "a key is %s, want a plain word", kind(name))
			continue
		}
		path := strings.TrimPrefix(key+"."+name.Value, ".")
		if line := seen[name.Value]; line != 0 {
			d.fail(name.Line, path, "is given twice, first in line %d", line)
			continue
		}
		seen[name.Value] = name.Line
		use(name, value, path)
	}
}

func (d *decoder) mapping(n *yaml.Node, key string, v reflect.Value) {
	t := v.Type()
	d.keys(n, key, func(name, value *yaml.Node, path string) {
		for _, f := range reflect.VisibleFields(t) { // including those of embedded structs
			if f.Tag.Get("yaml") == name.Value && name.Value != "-" {
				d.value(value, path, v.FieldByIndex(f.Index), f.Tag)
				return
			}
		}
		d.fail(name.Line, strings.TrimPrefix(key+"."+clip(name.Value), "."), "unknown key; %s", suggest(name.Value, keysOf(t)))
	})
}

// keysOf returns the keys that a struct takes.
func keysOf(t reflect.Type) (keys []string) {
	for _, f := range reflect.VisibleFields(t) {
		if k := f.Tag.Get("yaml"); k != "" && k != "-" {
			keys = append(keys, k)
		}
	}
	return keys
}

func (d *decoder) dictionary(n *yaml.Node, key string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.keys(n, key, func(name, value *yaml.Node, path string) {
		if name.Tag != placeholder.Literal && placeholder.In(name.Value) {
			d.fail(name.Line, path, "holds a placeholder, and in a key nothing is filled in")
			return
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(value, path, element, "")
		v.SetMapIndex(reflect.ValueOf(name.Value), element)
	})
}

func (d *decoder) list(n *yaml.Node, key string, v reflect.Value) {
	v.SetZero() // the given list replaces a default
	for i, item := range n.Content {
		element := reflect.New(v.Type().Elem())
		if e, ok := element.Interface().(interface{ setDefaults() }); ok {
			e.setDefaults()
		}
		d.value(item, key+"["+strconv.Itoa(i)+"]", element.Elem(), "")
		v.Set(reflect.Append(v, element.Elem()))
	}
}

// parse sets v from the text of a scalar. scalar is false if v takes a mapping or a list.
func parse(text string, v reflect.Value, tag reflect.StructTag) (scalar bool, err error) {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		*p, err = parseDuration(text)
	case *Size:
		*p, err = parseSize(text)
	case *Frequency:
		*p, err = parseFrequency(text)
	case *netip.Prefix:
		*p, err = parsePrefix(text)
	case *l402.Msat:
		*p, err = parseAmount(text)
	case *Rate:
		*p, err = parseRate(text, tag.Get("unit"))
	case *Store:
		*p, err = parseStore(text)
	case *l402.LedgerID:
		*p, err = parseLedgerID(text)
	case *slog.Level:
		*p, err = parseLevel(text)
	case **url.URL:
		*p, err = parseURL(text)
	default:
		return parseKind(text, v)
	}
	return true, err
}

func parseKind(text string, v reflect.Value) (scalar bool, err error) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		if v.Type().Elem().Kind() != reflect.Bool {
			return false, nil
		}
		v.Set(reflect.New(v.Type().Elem()))
		return parseKind(text, v.Elem())
	case reflect.Bool:
		v.SetBool(text == "true")
		if text != "true" && text != "false" {
			err = errors.New("want true or false")
		}
	case reflect.Int, reflect.Int64:
		var n int64
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			err = errors.New("want a whole number")
		}
		v.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return true, errors.New("want a number")
		}
		v.SetFloat(n)
	default:
		return false, nil
	}
	return true, err
}

// expected returns what v takes, for an error about a wrong value.
func expected(v reflect.Value, tag reflect.StructTag) string {
	scalar, err := parse("", v, tag)
	switch {
	case err != nil:
		return err.Error()
	case scalar:
		return "want text"
	case v.Kind() == reflect.Slice:
		return "want a list"
	case v.Kind() == reflect.Struct:
		return "want a mapping with the keys " + strings.Join(keysOf(v.Type()), ", ")
	default:
		return "want a mapping"
	}
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "empty"
	default:
		return "a single value"
	}
}

// got quotes a wrong value, unless the value may be a secret.
func got(text string, v reflect.Value) string {
	switch v.Interface().(type) {
	case Secret, Store, *url.URL:
		return ""
	}
	return ", got " + strconv.Quote(clip(text))
}

// clip shortens a text that is quoted in an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// suggest names the known word that is nearest to a wrong word. If no known word is near, it names all
// known words.
func suggest(wrong string, known []string) string {
	best, least := "", 1+max(1, min(len(wrong), 40)/3)
	for _, k := range known {
		if n := distance(wrong, k); n < least {
			best, least = k, n
		}
	}
	if best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	if len(known) == 0 {
		return "none is configured"
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return "want one of: " + strings.Join(known, ", ")
}

// distance returns how many bytes must be inserted, removed, changed or swapped with the next byte to
// turn a into b (optimal string alignment). For words above 64 bytes it returns the length of the
// longer word.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	var rows [3][65]int // the row before the last, the last row, and this row
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		rows[2][0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			n := min(rows[1][j]+1, rows[2][j-1]+1, rows[1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[0][j-2]+1)
			}
			rows[2][j] = n
		}
		rows[0], rows[1] = rows[1], rows[2]
	}
	return rows[1][len(b)]
}
