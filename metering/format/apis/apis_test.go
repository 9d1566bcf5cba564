package apis

import (
	"slices"
	"testing"

	"sluice.example/sluice/metering/format"
)

// Which APIs write tokens shows in the bounds of their smallest requests.
func TestWhichAPIsGenerate(t *testing.T) {
	var writes []string
	for _, f := range All() {
		if format.Generates(f) {
			writes = append(writes, f.Name())
		}
	}
	if want := []string{"chat", "completions"}; !slices.Equal(writes, want) {
		t.Errorf("%v write tokens, want %v", writes, want)
	}
}

// No two APIs share a name or a path.
func TestTheTableIsUnambiguous(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		for _, key := range append(f.Paths(), f.Name()) {
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
		if path, _ := f.Smallest(); !slices.Contains(f.Paths(), path) {
			t.Errorf("the smallest request of %s goes to %s", f.Name(), path)
		}
	}
}
