package openai

import (
	"testing"

	"sluice.example/sluice/metering/format/rawjson"
)

func FuzzRemoveUsage(f *testing.F) {
	f.Add([]byte(`{"a":1,"usage":2}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if rawjson.CheckDocument(doc) != nil {
			return
		}
		doc = doc[rawjson.SkipSpace(doc, 0):]
		out := removeHidden(nil, doc, hidden{usage: true}, nil)
		if err := rawjson.CheckDocument(out); err != nil {
			t.Fatalf("%s became %s: %v", doc, out, err)
		}
		for c := rawjson.Members(out); c.More(); {
			if key, _ := c.Member(); string(key) == "usage" {
				t.Fatalf("%s became %s", doc, out)
			}
		}
	})
}
