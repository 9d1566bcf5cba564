package main

import (
	"go/format"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files in a new folder and returns the folder.
func write(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestHandMutantsFitTheSources checks that every hand-written mutant still finds its text and that
// the changed sources are valid Go.
func TestHandMutantsFitTheSources(t *testing.T) {
	root := filepath.Join("..", "..")
	list, err := readHand(root, handFile, moneyCode)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		for _, f := range m.files() {
			source, err := os.ReadFile(filepath.Join(root, f))
			if err != nil {
				t.Fatal(err)
			}
			changed := m.apply(f, source)
			if string(changed) == string(source) {
				t.Errorf("%s does not change %s", m.id, f)
			}
			if strings.HasSuffix(f, ".go") {
				if _, err := format.Source(changed); err != nil {
					t.Errorf("%s: %v", m.id, err)
				}
			}
		}
	}
}

// TestExplainedSurvivorsExist checks that every explained mutant still exists.
func TestExplainedSurvivorsExist(t *testing.T) {
	root := filepath.Join("..", "..")
	known, err := readExplained(filepath.Join(root, survivorsFile))
	if err != nil {
		t.Fatal(err)
	}
	all, err := collect(root, moneyCode)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range stale(nil, known, all) {
		t.Error(id)
	}
}

const good = `# A comment.

mutant first
breaks Something.
file a.go
find
one
replace
ONE
end
find
	three
replace
end

mutant second
breaks Something else.
file b.go
find
four
replace
FOUR
end
`

var handTargets = []target{{files: []string{"*.go"}, suites: []suite{{pkg: "."}}}}

func TestHandForm(t *testing.T) {
	root := write(t, map[string]string{"hand.txt": good, "a.go": "one\ntwo\n\tthree\n", "b.go": "four\n"})
	list, err := readHand(root, "hand.txt", handTargets)
	if err != nil || len(list) != 2 {
		t.Fatalf("got %v, %v", list, err)
	}
	if list[0].id != "a.go: hand: first" || list[0].breaks != "Something." {
		t.Errorf("got %+v", list[0])
	}
	if got := string(list[0].apply("a.go", []byte("one\ntwo\n\tthree\n"))); got != "ONE\ntwo\n\n" {
		t.Errorf("got %q", got)
	}
}

// TestHandProblems checks that all mistakes are reported together, each with the mutant's name.
func TestHandProblems(t *testing.T) {
	const a, b = "one\ntwo\n\tthree\n", "four\n"
	for _, test := range []struct{ name, hand, a, b, want string }{
		{"gone", good, "one\n", b, "mutant first: the text to find is no longer in a.go"},
		{"twice", good, a, "four four\n", "mutant second: the text to find is 2 times in b.go"},
		{"both", good, "one\n", "five\n", "mutant second: the text to find is no longer in b.go"},
		{"same name", strings.ReplaceAll(good, "second", "first"), a, b, "a second mutant named first"},
		{"no sentence", strings.ReplaceAll(good, "breaks Something.\n", ""), a, b, "mutant first: want the line"},
		{"unguarded", strings.ReplaceAll(good, "file b.go", "file hand.txt"), a, b, "no tests are named for hand.txt"},
		{"no end", strings.TrimSuffix(good, "end\n"), a, b, "mutant second: a find block of line 19 without replace or end"},
		{"no change", good + "mutant third\nbreaks Nothing.\n", a, b, "mutant third changes nothing"},
		{"no mutant", "something\n" + good, a, b, `line 1: want the line "mutant NAME"`},
	} {
		root := write(t, map[string]string{"hand.txt": test.hand, "a.go": test.a, "b.go": test.b})
		if _, err := readHand(root, "hand.txt", handTargets); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

func TestReadExplained(t *testing.T) {
	root := write(t, map[string]string{
		"good":     "# comment\n\na.go: f: delete: x -> nothing\n  Because it\n  is so.\n",
		"twice":    "a\n  why\na\n  why\n",
		"nothing":  "  why\n",
		"silently": "a\nb\n  why\n",
	})
	known, err := readExplained(filepath.Join(root, "good"))
	if err != nil || len(known) != 1 || known["a.go: f: delete: x -> nothing"] != "Because it is so." {
		t.Errorf("got %q, %v", known, err)
	}
	for _, bad := range []string{"twice", "nothing", "silently"} {
		if _, err := readExplained(filepath.Join(root, bad)); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}
