package gateway_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModelNamesRealTests: every threat in docs/security.md names a test, and each of these
// tests exists.
func TestThreatModelNamesRealTests(t *testing.T) {
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	reference := regexp.MustCompile("`([a-z0-9_/]+_test\\.go):(Test[A-Za-z0-9]+)`")
	threats, _, _ := strings.Cut(string(doc), "## The numbers")
	rows := 0
	for line := range strings.SplitSeq(threats, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat") {
			continue
		}
		rows++
		found := reference.FindAllStringSubmatch(line, -1)
		if len(found) == 0 {
			t.Errorf("no test is named in %q", line)
		}
		for _, f := range found {
			source, err := os.ReadFile(filepath.Join(root, f[1]))
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(source), "\nfunc "+f[2]+"(") {
				t.Errorf("%s has no %s", f[1], f[2])
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d threats were found: has the form of the table changed?", rows)
	}
}
