package chat

import "testing"

func FuzzCheckDocument(f *testing.F) {
	for _, doc := range documents {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) { checkAgainstStandard(t, string(doc)) })
}

func FuzzRemoveUsage(f *testing.F) {
	f.Add([]byte(`{"a":1,"usage":2}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if checkDocument(doc) != nil {
			return
		}
		doc = doc[skipSpace(doc, 0):]
		out := removeHidden(nil, doc, hidden{usage: true})
		if err := checkDocument(out); err != nil {
			t.Fatalf("%s became %s: %v", doc, out, err)
		}
		for c := members(out); c.more(); {
			if key, _ := c.member(); string(key) == "usage" {
				t.Fatalf("%s became %s", doc, out)
			}
		}
	})
}
