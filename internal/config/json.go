package config

import (
	"encoding/json"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/metering/format/rawjson"
)

// JSON is a value of any kind in the file, converted to JSON.
type JSON []byte

// json decodes a value of any kind. The members of objects keep their order.
// maxPath bounds how long the name of a nested value may become, in bytes.
const maxPath = 1000

func (d *decoder) json(n *yaml.Node, key string) JSON { return d.appendJSON(nil, n, key) }

func (d *decoder) appendJSON(out []byte, n *yaml.Node, key string) []byte {
	if d.nodes++; d.nodes == maxNodes {
		d.fail(n.Line, key, "the file has more than %d values", maxNodes)
	}
	if d.nodes >= maxNodes {
		return append(out, "null"...)
	}
	if len(key) > maxPath { // each level makes it longer, and an alias may stand for what it is within
		if !d.deep {
			d.fail(n.Line, key[:64]+"…", "the value is nested too deeply")
		}
		d.deep = true
		return append(out, "null"...)
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.lines[key] = n.Line
	switch n.Kind {
	case yaml.MappingNode:
		out = append(out, '{')
		d.keys(n, key, func(name, value *yaml.Node, path string) {
			out = append(append(rawjson.Next(out), rawjson.Quote(name.Value)...), ':')
			out = d.appendJSON(out, value, path)
		})
		return append(out, '}')
	case yaml.SequenceNode:
		out = append(out, '[')
		for i, item := range n.Content {
			out = d.appendJSON(rawjson.Next(out), item, key+"["+strconv.Itoa(i)+"]")
		}
		return append(out, ']')
	}
	return append(out, d.scalarJSON(n, key)...)
}

// scalarJSON returns a number, true, false, null or a text as JSON. A value from the environment is
// read like a value that is written in the file.
func (d *decoder) scalarJSON(n *yaml.Node, key string) []byte {
	text, ok := d.fill(n, key)
	if !ok {
		return []byte("null")
	}
	filled := yaml.Node{Kind: yaml.ScalarNode, Value: text, Tag: n.Tag, Style: n.Style}
	if text != n.Value && n.Style == 0 {
		filled.Tag = ""
	}
	switch filled.ShortTag() {
	case "!!null", "!!bool", "!!int", "!!float":
	default:
		return rawjson.Quote(text)
	}
	var value any
	err := filled.Decode(&value)
	if err == nil {
		var out []byte
		if out, err = json.Marshal(value); err == nil {
			return out
		}
	}
	d.fail(n.Line, key, "want a value that JSON has")
	return []byte("null")
}

// filledBelow says whether a part of the value at a path came from the environment.
func (c *Config) filledBelow(path string) bool {
	for key := range c.raw {
		if rest, ok := strings.CutPrefix(key, path); ok && rest != "" && (rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}
