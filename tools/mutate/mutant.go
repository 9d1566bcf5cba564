package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one change of the sources.
type mutant struct {
	id     string // file, function, operator and text; unique
	hand   bool
	breaks string // what goes wrong; only for a hand-written mutant
	edits  []edit // in different files, or in different places of one file
}

// edit replaces the bytes from start to end of a file by text.
type edit struct {
	file       string // relative to the repository's root, with slashes
	start, end int
	text       string
}

// files returns the files that the mutant changes, each once.
func (m *mutant) files() (list []string) {
	for _, e := range m.edits {
		if !slices.Contains(list, e.file) {
			list = append(list, e.file)
		}
	}
	return list
}

// apply returns the text of a file with the mutant's edits.
func (m *mutant) apply(file string, source []byte) []byte {
	var own []edit
	for _, e := range m.edits {
		if e.file == file {
			own = append(own, e)
		}
	}
	slices.SortFunc(own, func(a, b edit) int { return b.start - a.start })
	text := slices.Clone(source)
	for _, e := range own {
		text = slices.Concat(text[:e.start], []byte(e.text), text[e.end:])
	}
	return text
}

// name returns the stable name of a mechanical mutant.
func name(file, function, operator, before, after string) string {
	before, after = oneLine(before), oneLine(after)
	same := 0
	for same < min(len(before), len(after)) && before[same] == after[same] {
		same++
	}
	return fmt.Sprintf("%s: %s: %s: %s -> %s", file, function, operator, shown(before, same), shown(after, same))
}

func oneLine(code string) string { return strings.Join(strings.Fields(code), " ") }

// shownBefore and shownAfter are how many bytes of long code a name shows before the first
// difference and after it.
const (
	shownBefore = 60
	shownAfter  = 80
)

// shown returns code on one line, cut around the place of the change.
func shown(code string, change int) string {
	from, to := change-shownBefore, change+shownAfter
	if to < len(code) {
		code = code[:to] + " …"
	}
	if from > 0 {
		code = "… " + code[from:]
	}
	if code == "" {
		return "nothing"
	}
	return strings.ToValidUTF8(code, "")
}

// number makes the names unique. The second mutant with the same name gets the suffix "(2)".
func number(list []*mutant) {
	seen := map[string]int{}
	for _, m := range list {
		seen[m.id]++
		if n := seen[m.id]; n > 1 {
			m.id = fmt.Sprintf("%s (%d)", m.id, n)
		}
	}
}

// collect returns all mutants of the targets: the mechanical mutants in the order of the sources,
// then the hand-written mutants.
func collect(root string, targets []target) ([]*mutant, error) {
	files, err := sources(root, targets)
	if err != nil {
		return nil, err
	}
	var all []*mutant
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			return nil, err
		}
		var list []*mutant
		if strings.HasSuffix(f, ".sql") {
			list = mutateSQLFile(f, string(text))
		} else if list, err = mutateGo(f, text); err != nil {
			return nil, err
		}
		number(list)
		all = append(all, list...)
	}
	hand, err := readHand(root, handFile, targets)
	if err != nil {
		return nil, err
	}
	return append(all, hand...), nil
}

// sources returns the files of the targets, without test files.
func sources(root string, targets []target) (list []string, err error) {
	for i := range targets {
		for _, pattern := range targets[i].files {
			found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				return nil, fmt.Errorf("no file matches %s, which the table of targets names", pattern)
			}
			for _, f := range found {
				rel, err := filepath.Rel(root, f)
				if err != nil {
					return nil, err
				}
				rel = filepath.ToSlash(rel)
				if !strings.HasSuffix(rel, "_test.go") && targets[i].has(rel) && !slices.Contains(list, rel) {
					list = append(list, rel)
				}
			}
		}
	}
	return list, nil
}

// sample chooses n mutants by a hash of their names and the seed, so that an edit of the sources
// changes only a small part of a sample. The chosen mutants keep their order.
func sample(list []*mutant, seed uint64, n int) []*mutant {
	rank := make(map[*mutant]uint64, len(list))
	for _, m := range list {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(m.id), seed))
		rank[m] = binary.BigEndian.Uint64(sum[:8])
	}
	byRank := slices.SortedFunc(slices.Values(list), func(a, b *mutant) int {
		if rank[a] < rank[b] {
			return -1
		}
		return 1
	})
	chosen := byRank[:n]
	return slices.DeleteFunc(slices.Clone(list), func(m *mutant) bool { return !slices.Contains(chosen, m) })
}
