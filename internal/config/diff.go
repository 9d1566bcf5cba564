package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
)

// Change is one key in which two configurations differ. It does not show secrets and values from the
// environment.
type Change struct {
	Key string `json:"key"`           // for example services[chat].models[llama].prices.input
	Old string `json:"old,omitempty"` // empty means that the key was not there
	// New is empty if the key is not there any more.
	New string `json:"new,omitempty"`
}

// String returns the change as one line.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return "+ " + c.Key + ": " + c.New
	case c.New == "":
		return "- " + c.Key + ": " + c.Old
	case c.Old == c.New: // a secret, which is not shown
		return "~ " + c.Key + ": changed"
	}
	return "~ " + c.Key + ": " + c.Old + " → " + c.New
}

// Diff returns the keys in which b differs from a, in the order of the configuration. Services, models,
// backends and keys are compared by their names. An element that only one configuration has is one
// change.
func Diff(a, b *Config) []Change {
	before, after := flatten(a), flatten(b)
	old := map[string]value{}
	for _, v := range before {
		old[v.key] = v
	}
	kept := map[string]bool{}
	var changes []Change
	for _, v := range after {
		kept[v.key] = true
		o, was := old[v.key]
		switch {
		case !was && v.under(old):
			// The change of the whole element already covers this key.
		case !was:
			changes = append(changes, Change{Key: v.key, New: v.shown})
		case o.exact != v.exact:
			changes = append(changes, Change{Key: v.key, Old: o.shown, New: v.shown})
		}
	}
	present := map[string]value{}
	for _, v := range after {
		present[v.key] = v
	}
	for _, o := range before {
		if !kept[o.key] && !o.under(present) {
			changes = append(changes, Change{Key: o.key, Old: o.shown})
		}
	}
	return changes
}

// value is one key of a configuration with its value.
type value struct {
	key    string
	shown  string
	exact  string // text that decides whether the value changed; may be a secret
	parent string // key of the named element that holds the value; empty means none
}

// under says whether the value belongs to an element that the other configuration does not have at all.
func (v *value) under(other map[string]value) bool {
	if v.parent == "" {
		return false
	}
	_, there := other[v.parent]
	return !there
}

// flattener walks a configuration and collects its values.
type flattener struct {
	cfg    *Config
	values []value
}

func flatten(c *Config) []value {
	f := &flattener{cfg: c}
	f.walk(reflect.ValueOf(c).Elem(), "", "", "", "")
	return f.values
}

// walk adds a value. path is the value's key with indices, as in the file. key is the value's key with
// names.
func (f *flattener) walk(v reflect.Value, path, key, parent string, tag reflect.StructTag) {
	if shown, exact, ok := render(v, tag); ok {
		if _, any := v.Interface().(JSON); any && f.cfg.filledBelow(path) {
			shown = ""
		}
		f.add(path, key, parent, shown, exact)
		return
	}
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		f.walk(v.Elem(), path, key, parent, "")
	case v.Kind() == reflect.Struct:
		f.fields(v, path, key, parent)
	case v.Kind() == reflect.Map:
		for _, name := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			f.walk(v.MapIndex(name), path+"."+name.String(), key+"."+name.String(), parent, "")
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			at := "[" + strconv.Itoa(i) + "]"
			name := elementName(v.Index(i), i)
			child := key + "[" + name + "]"
			f.values = append(f.values, value{key: child, shown: "present", exact: "present", parent: parent})
			f.walk(v.Index(i), path+at, child, child, "")
		}
	}
}

func (f *flattener) fields(v reflect.Value, path, key, parent string) {
	for _, field := range reflect.VisibleFields(v.Type()) {
		name := field.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		f.walk(v.FieldByIndex(field.Index), strings.TrimPrefix(path+"."+name, "."), strings.TrimPrefix(key+"."+name, "."), parent, field.Tag)
	}
	if k, ok := v.Interface().(Key); ok { // whether the secret came from the file or the environment
		f.values = append(f.values, value{key: key + ".secret", shown: Secret("").String(), exact: string(k.Master.Secret[:]), parent: parent})
	}
}

func (f *flattener) add(path, key, parent, shown, exact string) {
	if strings.HasPrefix(key, "keys[") && strings.HasSuffix(key, ".secret") {
		return // fields adds the secret
	}
	if raw := f.cfg.raw[path]; raw != "" && shown != "" {
		shown = raw
	}
	if shown == "" && exact != "" {
		shown = Secret("").String()
	}
	if exact == "" {
		return // the value is not set
	}
	f.values = append(f.values, value{key: key, shown: shown, exact: exact, parent: parent})
}

// elementName returns the name of an element of a list: its Name, its ID or its index.
func elementName(v reflect.Value, i int) string {
	for _, name := range []string{"Name", "ID"} {
		if v.Kind() == reflect.Struct && v.FieldByName(name).IsValid() {
			return v.FieldByName(name).String()
		}
	}
	return strconv.Itoa(i)
}

// render returns a value as the file would write it. ok is false for a value that has parts. An empty
// exact means that the value is not set.
func render(v reflect.Value, tag reflect.StructTag) (shown, exact string, ok bool) {
	switch x := v.Interface().(type) {
	case Secret:
		return "", string(x), true
	case JSON:
		return string(x), string(x), true
	case Store:
		if x.Path != "" {
			return "sqlite:" + x.Path, x.Path, true
		}
		return "", string(x.URL), true
	case time.Duration:
		return short(x), x.String(), true
	case Rate:
		text := strconv.FormatInt(int64(x), 10) + " msat/" + tag.Get("unit")
		return text, text, true
	case Size, Frequency, l402.Msat, l402.LedgerID, slog.Level, netip.Prefix:
		text := fmt.Sprint(x)
		return text, text, true
	case *url.URL:
		if x == nil {
			return "", "", true
		}
		return x.Scheme + "://" + x.Host + x.Path, x.String(), true // without the query, which may hold a key
	case *bool:
		if x == nil {
			return "", "", true
		}
		return strconv.FormatBool(*x), strconv.FormatBool(*x), true
	case []string:
		if strings.HasSuffix(tag.Get("yaml"), "command") { // not shown, because its arguments may be secrets
			return "", strings.Join(x, "\x00"), true
		}
		return listed(x)
	case []netip.Prefix:
		texts := make([]string, len(x))
		for i, p := range x {
			texts[i] = p.String()
		}
		return listed(texts)
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		text := fmt.Sprint(v.Interface())
		return text, text, true
	}
	return "", "", false
}

// listed returns a list of words as one text.
func listed(words []string) (shown, exact string, ok bool) {
	if len(words) == 0 {
		return "", "", true
	}
	return "[" + strings.Join(words, ", ") + "]", strings.Join(words, "\x00"), true
}
