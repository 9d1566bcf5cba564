package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// readExplained reads the known survivors. The file has the name of a mutant on a line of its own,
// and then the explanation on lines that begin with white space. Empty lines and lines that begin
// with # are ignored. A file that does not exist counts as empty.
func readExplained(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	last := ""
	for i, line := range strings.Split(string(text), "\n") {
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == "", strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return nil, fmt.Errorf("%s:%d: an explanation of nothing", path, i+1)
			}
			known[last] = strings.TrimSpace(known[last] + " " + trimmed)
		default:
			if _, twice := known[trimmed]; twice {
				return nil, fmt.Errorf("%s:%d: a mutant that was explained before: %s", path, i+1, trimmed)
			}
			last = trimmed
			known[last] = ""
		}
	}
	for id, why := range known {
		if why == "" {
			return nil, fmt.Errorf("%s: no explanation of %s", path, id)
		}
	}
	return known, nil
}

// unexplained returns the survivors that the file does not explain.
func unexplained(results []result, known map[string]string) (list []result) {
	for _, r := range results {
		if r.Outcome == survived && known[r.Mutant] == "" {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b result) int { return cmp.Compare(a.Mutant, b.Mutant) })
	return list
}

// broken returns the hand-written mutants that do not compile, because they test nothing.
func broken(results []result) (list []result) {
	for _, r := range results {
		if r.Outcome == notMutant && r.mutant.hand {
			list = append(list, r)
		}
	}
	return list
}

// stale returns the explained mutants that do not survive or no longer exist.
func stale(results []result, known map[string]string, all []*mutant) (list []string) {
	exists := map[string]bool{}
	for _, m := range all {
		exists[m.id] = true
	}
	for id := range known {
		if !exists[id] {
			list = append(list, id+"\n    no such mutant any more")
		}
	}
	for _, r := range results {
		if r.Outcome != survived && known[r.Mutant] != "" {
			list = append(list, fmt.Sprintf("%s\n    %s now (%s)", r.Mutant, r.Outcome, r.By))
		}
	}
	slices.Sort(list)
	return list
}

// report prints the results of the mutants.
func report(out io.Writer, results []result, known map[string]string, all []*mutant) {
	count := map[outcome]int{}
	for _, r := range results {
		count[r.Outcome]++
	}
	fmt.Fprintf(out, "\n%d mutants killed, %d survived, %d did not compile\n",
		count[killed], count[survived], count[notMutant])
	for _, r := range broken(results) {
		fmt.Fprintf(out, "\n%s\n    does not compile, repair it in %s: %s\n", r.Mutant, handFile, r.By)
	}
	if list := unexplained(results, known); len(list) > 0 {
		fmt.Fprintf(out, "\n%d survivors are not explained in %s:\n\n", len(list), survivorsFile)
		for _, r := range list {
			fmt.Fprintln(out, r.Mutant)
			if r.mutant.breaks != "" {
				fmt.Fprintln(out, "    it breaks: "+r.mutant.breaks)
			}
		}
	}
	if list := stale(results, known, all); len(list) > 0 {
		fmt.Fprintf(out, "\n%d lines of %s are stale; remove them:\n\n%s\n",
			len(list), survivorsFile, strings.Join(list, "\n"))
	}
}
