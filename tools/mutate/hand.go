package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// readHand reads the hand-written mutants. Their file has a block for each:
//
//	mutant NAME
//	breaks What goes wrong, in one sentence.
//	file metering/writer.go
//	find
//	exact text, which must be there once
//	replace
//	what takes its place
//	end
//
// The words find, replace and end are on a line of their own. A further find block changes the same
// file. A further file line begins the changes of another file. Lines that begin with # and empty
// lines between blocks are ignored.
func readHand(root, path string, targets []target) ([]*mutant, error) {
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	r := &handReader{root: root, targets: targets, lines: strings.Split(string(text), "\n"), names: map[string]bool{}}
	for r.more() {
		r.block()
	}
	if len(r.problems) > 0 {
		return nil, fmt.Errorf("%s does not fit the sources:\n  %s", path, strings.Join(r.problems, "\n  "))
	}
	return r.list, nil
}

// handReader reads the lines of the file. It collects all problems, because a developer who has
// changed the sources wants to see all of them together.
type handReader struct {
	root     string
	targets  []target
	lines    []string
	at       int
	names    map[string]bool
	list     []*mutant
	problems []string
}

// more moves to the next block and reports whether there is one.
func (r *handReader) more() bool {
	for ; r.at < len(r.lines); r.at++ {
		if l := r.lines[r.at]; strings.TrimSpace(l) != "" && !strings.HasPrefix(l, "#") {
			return true
		}
	}
	return false
}

func (r *handReader) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("line %d: ", r.at+1)+fmt.Sprintf(format, args...))
}

// field reads a line of the form "key value" and returns the value. It returns false when the
// current line has another form.
func (r *handReader) field(key string) (string, bool) {
	if r.at < len(r.lines) {
		if value, ok := strings.CutPrefix(r.lines[r.at], key+" "); ok {
			r.at++
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// block reads one mutant.
func (r *handReader) block() {
	name, ok := r.field("mutant")
	if !ok {
		r.problem("want the line \"mutant NAME\", got %q", r.lines[r.at])
		r.at++
		return
	}
	if r.names[name] {
		r.problem("a second mutant named %s", name)
	}
	r.names[name] = true
	breaks, ok := r.field("breaks")
	if !ok {
		r.problem("mutant %s: want the line \"breaks SENTENCE\"", name)
	}
	m := &mutant{hand: true, breaks: breaks}
	file := ""
	for r.more() {
		if f, ok := r.field("file"); ok {
			file = f
			continue
		}
		if r.lines[r.at] != "find" {
			break
		}
		r.change(m, name, file)
	}
	if len(m.edits) == 0 {
		r.problem("mutant %s changes nothing", name)
		return
	}
	m.id = fmt.Sprintf("%s: hand: %s", m.edits[0].file, name)
	r.list = append(r.list, m)
}

// change reads one find block and finds its text in the file.
func (r *handReader) change(m *mutant, name, file string) {
	line := r.at
	r.at++
	find, ok := r.until("replace")
	text, closed := r.until("end")
	if !ok || !closed {
		r.problem("mutant %s: a find block of line %d without replace or end", name, line+1)
		r.at = len(r.lines)
		return
	}
	source, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(file)))
	switch n := strings.Count(string(source), find); {
	case err != nil:
		r.problem("mutant %s: %v", name, err)
	case len(guards(r.targets, []string{file}, options{postgres: true, lnd: true})) == 0:
		r.problem("mutant %s: no tests are named for %s in the table of targets", name, file)
	case find == "" || n == 0:
		r.problem("mutant %s: the text to find is no longer in %s; adapt the mutant to the code:\n%s",
			name, file, indent(find))
	case n > 1:
		r.problem("mutant %s: the text to find is %d times in %s; it must be there once:\n%s",
			name, n, file, indent(find))
	default:
		at := strings.Index(string(source), find)
		m.edits = append(m.edits, edit{file: file, start: at, end: at + len(find), text: text})
		return
	}
	m.edits = append(m.edits, edit{file: file}) // without this edit the block would also be reported as changing nothing
}

// until returns the lines before the line that is equal to word.
func (r *handReader) until(word string) (string, bool) {
	from := r.at
	for ; r.at < len(r.lines); r.at++ {
		if r.lines[r.at] == word {
			r.at++
			return strings.Join(r.lines[from:r.at-1], "\n"), true
		}
	}
	return "", false
}

func indent(text string) string { return "      " + strings.ReplaceAll(text, "\n", "\n      ") }
