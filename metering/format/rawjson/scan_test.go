package rawjson

import (
	"encoding/json"
	"strings"
	"testing"
)

var documents = []string{
	`{}`, ` {"a":1} `, `{"a":{"b":[1,2,{"c":null}]},"d":"x"}`, `{"a":-0,"b":1.5e+10,"c":0.0,"d":1E5}`, `{"é":"\u00e9\n\"\\\/"}`,
	`{"a":[],"b":{}}`, "{\"a\" :\t1 ,\r\n\"b\": [ 1 , 2 ] }", `{"a":"\ud83d\ude00 \ud800"}`,
	``, ` `, `[]`, `"x"`, `1`, `null`, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1}}`, `{"a":1} {}`, `{"a":1}x`, `{a:1}`, `{'a':1}`,
	`{"a":01}`, `{"a":+1}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":tru}`, `{"a":nul}`, `{"a":truex}`,
	`{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\u12"}`, `{"a":"x`, "{\"a\":\"x\ny\"}", "{\"a\":\"\x00\"}", `{"a":[1,]}`, `{"a":[1 2]}`, `{"a" 1}`, `{"a":1 "b":2}`,
	`{"a":[1}`, `{"a":{"b":1]}`, `{"a":"` + "\xff" + `"}`, "\ufeff{}", `{"a":/**/1}`, `{"a":"\`, `{"a":"\u`, `{"a":-`, `{"a":[`, `{"a":1e5`,
}

func TestCheckDocumentAgreesWithTheStandardLibrary(t *testing.T) {
	for _, doc := range documents {
		checkAgainstStandard(t, doc)
	}
	deep := strings.Repeat(`{"a":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth)
	if err := CheckDocument([]byte(deep)); err != nil {
		t.Errorf("%d levels: %v", MaxDepth, err)
	}
	if CheckDocument([]byte(`{"a":`+deep+`}`)) == nil {
		t.Errorf("%d levels were taken", MaxDepth+1)
	}
}

// checkAgainstStandard compares with encoding/json, which replaces invalid
// UTF-8 where this package refuses it.
func checkAgainstStandard(t *testing.T, doc string) {
	t.Helper()
	var object map[string]json.RawMessage
	want := json.Unmarshal([]byte(doc), &object) == nil && object != nil && strings.ToValidUTF8(doc, "") == doc
	err := CheckDocument([]byte(doc))
	if err != nil && strings.Contains(err.Error(), "nested deeper") {
		return
	}
	if (err == nil) != want {
		t.Errorf("%q: error %v, valid by encoding/json: %v", doc, err, want)
	}
	if err != nil {
		return
	}
	last := map[string]string{}
	for c := Members([]byte(doc)[SkipSpace([]byte(doc), 0):]); c.More(); {
		key, value := c.Member()
		last[string(key)] = string(value)
		checkText(t, value)
	}
	if len(last) != len(object) {
		t.Errorf("%q: %d keys, want %d", doc, len(last), len(object))
	}
	for key, value := range object {
		if last[key] != string(value) {
			t.Errorf("%q: value %q of %q, want %q", doc, last[key], key, value)
		}
	}
}

// checkText compares the length of a string without decoding it.
func checkText(t *testing.T, value []byte) {
	t.Helper()
	if !IsString(value) {
		for c := Members(value); c.More(); {
			_, v := c.Member()
			checkText(t, v)
		}
		for c := Elements(value); c.More(); {
			checkText(t, c.Value())
		}
		return
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		t.Fatal(err)
	}
	if got := TextBytes(value[1 : len(value)-1]); got != int64(len(text)) {
		t.Errorf("%s stands for %d bytes, counted %d", value, len(text), got)
	}
}
