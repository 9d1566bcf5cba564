package conformance

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentNamesTheseReleases checks that docs/protocol.md names the releases that the tests
// run.
func TestDocumentNamesTheseReleases(t *testing.T) {
	document, err := os.ReadFile("../docs/protocol.md")
	must(t, err)
	said := map[string]string{} // the text in the document, by SDK
	for line := range strings.SplitSeq(string(document), "\n") {
		if cells := strings.Split(line, " | "); len(cells) == 2 {
			said[strings.TrimPrefix(cells[0], "| ")] = cells[1]
		}
	}
	var packages struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	data, err := os.ReadFile("package.json")
	must(t, err)
	must(t, json.Unmarshal(data, &packages))
	want := map[string][]string{}
	for name, version := range packages.Dependencies {
		switch name {
		case "openai":
			name = "openai (JavaScript)"
		case "zod", "@langchain/core": // packages that the SDKs need
			continue
		}
		want[name] = append(want[name], version)
	}
	required := regexp.MustCompile(`(?m)^\t(github\.com/(?:openai|sashabaranov)/\S+) (v\S+)$`)
	for _, list := range []string{"go.mod", "old.mod"} {
		data, err := os.ReadFile(list)
		must(t, err)
		for _, m := range required.FindAllStringSubmatch(string(data), -1) {
			want[m[1]] = append(want[m[1]], m[2])
		}
	}
	if len(want) != 8 {
		t.Errorf("%d SDKs were found: %v", len(want), want)
	}
	for name, versions := range want {
		for _, version := range versions {
			if !strings.Contains(said[name], version) {
				t.Errorf("docs/protocol.md says %q of %s; want %s", said[name], name, version)
			}
		}
	}
}
