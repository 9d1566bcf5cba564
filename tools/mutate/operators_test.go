package main

import (
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ids returns the names of the mutants without the prefix that all mutants of one file share.
func ids(list []*mutant, prefix string) (names []string) {
	for _, m := range list {
		names = append(names, strings.TrimPrefix(m.id, prefix))
	}
	return names
}

// TestOperators compares the mutants of a small file with a list.
func TestOperators(t *testing.T) {
	source, err := os.ReadFile("testdata/sample.go")
	if err != nil {
		t.Fatal(err)
	}
	list, err := mutateGo("sample.go", source)
	if err != nil {
		t.Fatal(err)
	}
	number(list)
	got := strings.Join(ids(list, "sample.go: "), "\n") + "\n"
	want, err := os.ReadFile("testdata/sample.mutants")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, m := range list {
		changed := m.apply("sample.go", source)
		if string(changed) == string(source) {
			t.Errorf("%s changes nothing", m.id)
		}
		if _, err := format.Source(changed); err != nil {
			t.Errorf("%s is no Go: %v\n%s", m.id, err, changed)
		}
		if a, b := strings.Count(string(changed), "\n"), strings.Count(string(source), "\n"); a != b {
			t.Errorf("%s moves what follows from line %d to %d", m.id, b, a)
		}
	}
}

func TestApplySeveralEdits(t *testing.T) {
	m := &mutant{edits: []edit{
		{file: "a", start: 0, end: 1, text: "xyz"}, {file: "b", end: 1, text: "-"}, {file: "a", start: 2, end: 3, text: ""},
	}}
	if got := string(m.apply("a", []byte("123"))); got != "xyz2" {
		t.Errorf("got %q", got)
	}
	if got := m.files(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("files %q", got)
	}
}

// TestNamesOutlastEdits checks that a change of the code before a mutant does not change the
// mutant's name.
func TestNamesOutlastEdits(t *testing.T) {
	const tail = "func f(a, b int) bool { return a < b }\n"
	before, err := mutateGo("f.go", []byte("package p\n"+tail))
	if err != nil {
		t.Fatal(err)
	}
	after, err := mutateGo("f.go", []byte("package p\n\n// A comment.\nvar x = 1\n\n"+tail))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := ids(before, ""), ids(after, ""); len(a) != 2 || !slices.Equal(a, b) {
		t.Errorf("%q became %q", a, b)
	}
}

// TestLongNamesShowTheChange checks that the name of a mutant of long code is cut around the
// change.
func TestLongNamesShowTheChange(t *testing.T) {
	long := strings.Repeat("aaaa + ", 60)
	got := name("f.go", "f", "boundary", long+"x < y + "+long, long+"x <= y + "+long)
	if !strings.Contains(got, "x < y") || !strings.Contains(got, "x <= y") || len(got) > 400 {
		t.Errorf("got %q", got)
	}
}

// TestSQL compares the text after each change with a list, in order.
func TestSQL(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{"a message: a < b, and no word of a database", nil},
		{"UPDATE t SET a = b + 1 WHERE id = $1", []string{
			"UPDATE t SET a = b - 1 WHERE id = $1", "UPDATE t SET a = b + 1 WHERE (id = $1 OR true)"}},
		{"SELECT 1 FROM t WHERE k IN (SELECT k FROM u WHERE x < 'a AND b)') FOR UPDATE SKIP LOCKED", []string{
			"SELECT 1 FROM t WHERE k IN (SELECT k FROM u WHERE x < 'a AND b)')",
			"SELECT 1 FROM t WHERE k IN (SELECT k FROM u WHERE x < 'a AND b)') FOR UPDATE",
			"SELECT 1 FROM t WHERE k IN (SELECT k FROM u WHERE x <= 'a AND b)') FOR UPDATE SKIP LOCKED",
			"SELECT 1 FROM t WHERE (k IN (SELECT k FROM u WHERE x < 'a AND b)') OR true) FOR UPDATE SKIP LOCKED",
			"SELECT 1 FROM t WHERE k IN (SELECT k FROM u WHERE (x < 'a AND b)' OR true)) FOR UPDATE SKIP LOCKED"}},
		{"INSERT INTO c VALUES (1) ON CONFLICT (a) DO UPDATE SET b = greatest(c.b, excluded.b) RETURNING b", []string{
			"INSERT INTO c VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING b",
			"INSERT INTO c VALUES (1) ON CONFLICT (a) DO UPDATE SET b = least(c.b, excluded.b) RETURNING b",
			"INSERT INTO c VALUES (1) ON CONFLICT (a) DO NOTHING RETURNING b"}},
		{"SELECT max(id) FROM t WHERE a BETWEEN 1 AND 2 ORDER BY a, b LIMIT 3", []string{
			"SELECT max(id) FROM t WHERE (a BETWEEN 1 AND 2 OR true) ORDER BY a, b LIMIT 3",
			"SELECT max(id) FROM t WHERE a BETWEEN 1 AND 2  LIMIT 3"}},
		{"SELECT set_config('synchronous_commit', 'on', false)", []string{
			"SELECT set_config('synchronous_commit', 'off', false)"}},
		{"PRAGMA synchronous=FULL", []string{"PRAGMA synchronous=NORMAL", "PRAGMA synchronous=OFF"}},
		{"CREATE TABLE t (a int CHECK (a IN (1, 2)))", []string{"CREATE TABLE t (a int CHECK (true))"}},
		{"DELETE FROM t WHERE a = `", nil},
	} {
		var got []string
		for _, c := range sqlChanges(test.text) {
			got = append(got, test.text[:c.start]+c.text+test.text[c.end:])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s\ngot\n  %s\nwant\n  %s", test.text,
				strings.Join(got, "\n  "), strings.Join(test.want, "\n  "))
		}
	}
}

// TestSQLFile checks that comments are ignored and that a mutant's name has the table of the
// change.
func TestSQLFile(t *testing.T) {
	const text = "-- CHECK (a > 0)\nCREATE TABLE one (a int);\nCREATE TABLE two (b int CHECK (b > 0));\n"
	list := mutateSQLFile("m.sql", text)
	want := []string{"two: sql-boundary: > -> >=", "two: sql-check: CHECK (b > 0) -> CHECK (true)"}
	if got := ids(list, "m.sql: "); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestSample checks that a sample keeps the order, depends on the seed, and changes little when a
// mutant is added.
func TestSample(t *testing.T) {
	var list []*mutant
	for r := 'a'; r <= 'z'; r++ {
		list = append(list, &mutant{id: string(r)})
	}
	first := ids(sample(list, 1, 8), "")
	if !slices.IsSorted(first) || len(first) != 8 || !slices.Equal(first, ids(sample(list, 1, 8), "")) {
		t.Errorf("the sample is %q", first)
	}
	if slices.Equal(first, ids(sample(list, 2, 8), "")) {
		t.Error("two seeds give one sample")
	}
	kept := 0
	for _, id := range ids(sample(append(list, &mutant{id: "more"}), 1, 8), "") {
		if slices.Contains(first, id) {
			kept++
		}
	}
	if kept < 7 {
		t.Errorf("one more mutant left only %d of 8 in the sample", kept)
	}
}

// TestSources checks that sources leaves out test files and the files that the table excepts.
func TestSources(t *testing.T) {
	list, err := sources(filepath.Join("..", ".."), moneyCode)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "/raw.go") || strings.HasPrefix(f, "metering/format") {
			t.Errorf("%s is mutated", f)
		}
	}
	for _, f := range []string{
		"metering/writer.go", "internal/store/sqlite/writer.go", "internal/lightning/watermark.go",
	} {
		if !slices.Contains(list, f) {
			t.Errorf("%s is not mutated", f)
		}
	}
}
