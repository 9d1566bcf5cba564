package rawjson

import "testing"

func FuzzCheckDocument(f *testing.F) {
	for _, doc := range documents {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) { checkAgainstStandard(t, string(doc)) })
}
