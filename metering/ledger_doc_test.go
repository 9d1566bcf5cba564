package metering_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesNameRealTests checks that every promise in docs/ledger.md names a test, and that each of these tests
// exists. A test of the stores' common suite is a function that the suite lists.
func TestPromisesNameRealTests(t *testing.T) {
	root := ".."
	doc, err := os.ReadFile(filepath.Join(root, "docs", "ledger.md"))
	if err != nil {
		t.Fatal(err)
	}
	suite, err := os.ReadFile(filepath.Join(root, "internal", "store", "storetest", "storetest.go"))
	if err != nil {
		t.Fatal(err)
	}
	reference := regexp.MustCompile("`([a-z0-9_/]+\\.go):([Tt]est[A-Za-z0-9]+)`")
	rows := 0
	for line := range strings.SplitSeq(string(doc), "\n") {
		found := reference.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasSuffix(line, "| shown by |") {
			if rows++; len(found) == 0 {
				t.Errorf("no test is named in %q", line)
			}
		}
		for _, f := range found {
			source, err := os.ReadFile(filepath.Join(root, f[1]))
			switch {
			case err != nil:
				t.Error(err)
			case !strings.Contains(string(source), "\nfunc "+f[2]+"("):
				t.Errorf("%s has no %s", f[1], f[2])
			case strings.HasPrefix(f[2], "test") && !strings.Contains(string(suite), ", "+f[2]+"}"):
				t.Errorf("the suite does not run %s", f[2])
			case strings.HasPrefix(f[2], "Test") && !strings.HasSuffix(f[1], "_test.go"):
				t.Errorf("%s is no file of tests", f[1])
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d promises were found: has the form of the tables changed?", rows)
	}
}
