package rawjson

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

// renamed passes a document in pieces of n bytes through an outline that renames its
// model.
func renamed(document, value string, n int) string {
	o := NewOutline([]string{"data"}, func(string, []byte) error { return nil })
	o.Rename("model", []byte(value))
	var out []byte
	for piece := range slices.Chunk([]byte(document), n) {
		_ = o.Add(piece)
		out = append(out, o.Renamed(bytes.Clone(piece))...)
	}
	return string(out)
}

func TestRenameInPieces(t *testing.T) {
	for document, want := range map[string]string{
		`{"model":"a/b","data":[1]}`:                                `{"model":"shown","data":[1]}`,
		`{"data":[{"model":"x"}, {"model":"x"}], "model" : "a\"b"}`: `{"data":[{"model":"x"}, {"model":"x"}], "model" : "shown"}`,
		`{"a":{"model":"x"},"model":""}`:                            `{"a":{"model":"x"},"model":"shown"}`,
		`{"model":null,"b":"model"}`:                                `{"model":null,"b":"model"}`,
		`{"b":"\"model\":","c":"d"}`:                                `{"b":"\"model\":","c":"d"}`,
		`{"x\"model":"d"}`:                                          `{"x\"model":"d"}`,
		`[{"model":"x"}]`:                                           `[{"model":"x"}]`,
		`{"model":"a","model":"b"}`:                                 `{"model":"shown","model":"shown"}`,
		`{"mod\u0065l":"a","data":[{"mod\u0065l":"x"}]}`:            `{"mod\u0065l":"shown","data":[{"mod\u0065l":"x"}]}`,
		`{"a":1,"\u006dodel" : "a"}`:                                `{"a":1,"\u006dodel" : "shown"}`,
		`{"b":"c\",\"model\":","d":"e"}`:                            `{"b":"c\",\"model\":","d":"e"}`,
		`{"b":",\"model","d":"e"}`:                                  `{"b":",\"model","d":"e"}`,
		`{"model":"a","data":[1],"model":"b"}`:                      `{"model":"shown","data":[1],"model":"shown"}`,
	} {
		for _, n := range []int{1, 2, 3, 7} {
			if got := renamed(document, `"shown"`, n); got != want {
				t.Errorf("%s in pieces of %d: %s", document, n, got)
			}
		}
		if got := renamed(document, `"shown"`, len(document)); got != want {
			t.Errorf("%s: %s", document, got)
		}
	}
}

// Whatever the document is, nothing of it changes but the strings that are the value of
// its member model.
func FuzzRename(f *testing.F) {
	f.Add([]byte(`{"model":"a","data":[{"model":1}],"x":"\"model\":"}`), uint8(3))
	f.Add([]byte(`{"model":"`), uint8(1))
	f.Add([]byte(`{"a":[["model"]],"model":"\u00e4"}`), uint8(2))
	f.Fuzz(func(t *testing.T, document []byte, n uint8) {
		got := []byte(renamed(string(document), `"shown"`, max(1, int(n))))
		var before, after map[string]json.RawMessage
		if json.Unmarshal(document, &before) != nil || bytes.Count(document, []byte("model")) != 1 || len(document) > 500 {
			return
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s became %s: %v", document, got, err)
		}
		if m := before["model"]; len(m) > 0 && m[0] == '"' {
			before["model"] = json.RawMessage(`"shown"`)
		}
		for name, v := range before {
			if !bytes.Equal(v, after[name]) {
				t.Fatalf("%s became %s", document, got)
			}
		}
	})
}
