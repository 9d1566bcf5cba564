package rawjson

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// outline reads a document in pieces of n bytes.
func outline(document string, n int) (elements []string, rest string, err error) {
	o := NewOutline([]string{"data", "results"}, func(list string, element []byte) error {
		elements = append(elements, list+" "+string(element))
		return nil
	})
	for piece := range slices.Chunk([]byte(document), n) {
		if err = o.Add(piece); err != nil {
			return elements, "", err
		}
	}
	b, err := o.Rest()
	return elements, string(b), err
}

func TestOutline(t *testing.T) {
	long := strings.Repeat("ä", 1000)
	for name, c := range map[string]struct {
		document string
		elements []string
		rest     string
	}{
		"embeddings": {`{ "object" : "list" , "data" : [ {"index":0,"embedding":[0.25,-1e-3,3]} , {"index":1,"embedding":[[1,2],[3]]} ] , "usage":{"prompt_tokens":7}}`,
			[]string{`data {"index":0,"embedding":[0.25]}`, `data {"index":1,"embedding":[[1]]}`}, `{"object":"list","data":[],"usage":{"prompt_tokens":7}}`},
		"bare list":        {`[{"index":1,"score":0.5},{"index":0}]`, []string{` {"index":1,"score":0.5}`, ` {"index":0}`}, `[]`},
		"empty list":       {`{"data":[]}`, nil, `{"data":[]}`},
		"both lists":       {`{"data":[1, 2],"results":["a"]}`, []string{"data 1", "data 2", `results "a"`}, `{"data":[],"results":[]}`},
		"other lists":      {`{"a":[1,{"x":"]"},3],"b":{"data":[4,5]},"data":null}`, nil, `{"a":[1],"b":{"data":[4]},"data":null}`},
		"signs in strings": {`{"data":[{"s":"a]\"},{[\\"}],"x":"\\"}`, []string{`data {"s":"a]\"},{[\\"}`}, `{"data":[],"x":"\\"}`},
		"a long string":    {`{"data":[{"s":"` + long + `"}]}`, []string{`data {"s":"` + long[:OutlineString] + `"}`}, `{"data":[]}`},
		"escapes at the cut": {`{"s":"` + strings.Repeat("a", OutlineString-3) + `\u00e4bc"}`, nil,
			`{"s":"` + strings.Repeat("a", OutlineString-3) + `\u00e4"}`},
	} {
		for _, n := range []int{1, 2, 7, 1 << 20} {
			elements, rest, err := outline(c.document, n)
			if err != nil || !slices.Equal(elements, c.elements) || rest != c.rest {
				t.Errorf("%s by %d: %q\n%s\n%v", name, n, elements, rest, err)
			}
		}
	}
}

func TestOutlineRefusesWhatIsNoDocument(t *testing.T) {
	for _, document := range []string{``, `{"data":[{"a":1}`, `{"data":["`} {
		if _, _, err := outline(document, 3); document != "" && !errors.Is(err, ErrUnfinished) {
			t.Errorf("%q: %v", document, err)
		}
	}
	for _, document := range []string{`7`, `"a"`, `{"a":[1}`, `{}]`, `{} {}`, "{\"a\":\"\n\"}", strings.Repeat("[", 200),
		`{"a":{` + strings.Repeat(`"abcdefgh":1,`, maxOutline/8) + `"a":1}}`} {
		if _, _, err := outline(document, 1<<20); err == nil || errors.Is(err, ErrUnfinished) {
			t.Errorf("%.40q: %v", document, err)
		}
	}
}

// FuzzOutline: where the pieces end changes nothing.
func FuzzOutline(f *testing.F) {
	f.Add([]byte(`{"data":[{"index":0,"embedding":[0.25,-1e-3,3]}],"usage":{"a":"\u00e4"}}`), 3)
	f.Add([]byte(`[[1,2],"\\",{}]`), 1)
	f.Fuzz(func(t *testing.T, document []byte, n int) {
		whole, rest, err := outline(string(document), len(document)+1)
		pieces, rest2, err2 := outline(string(document), 1+max(n, -n)%7)
		if rest != rest2 || (err == nil) != (err2 == nil) || err == nil && !slices.Equal(whole, pieces) {
			t.Errorf("%q: %q %q %v, in pieces %q %q %v", document, whole, rest, err, pieces, rest2, err2)
		}
		if err != nil || len(document) == 0 {
			return
		}
		if _, err := CheckValue(document, SkipSpace(document, 0), MaxDepth); err == nil {
			if _, err := CheckValue([]byte(rest), 0, MaxDepth); err != nil {
				t.Errorf("%q: the outline %q is no JSON", document, rest)
			}
		}
	})
}

// A name means the same with escapes, and one that only ends like another is another.
func TestOutlineReadsNames(t *testing.T) {
	for document, want := range map[string][]string{
		`{"d\u0061ta":[1,2]}`:                 {"data 1", "data 2"},
		`{"result\u0073" : [1,2]}`:            {"results 1", "results 2"},
		`{"x\"data":[1,2]}`:                   nil,
		`{"x":"\"data\":","y":[1,2]}`:         nil,
		`{"x\\":1,"data":[3]}`:                {"data 3"},
		`{"":[1,2],"data":[3]}`:               {"data 3"},
		`{"a":1,"\u0064\u0061t\u0061":[3,4]}`: {"data 3", "data 4"},
	} {
		for _, n := range []int{1, 3, 100} {
			elements, _, err := outline(document, n)
			if err != nil || !slices.Equal(elements, want) {
				t.Errorf("%s by %d: %q %v, want %q", document, n, elements, err, want)
			}
		}
	}
}
