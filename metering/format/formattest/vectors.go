// Package formattest reads recorded answers of inference servers: what each server said
// to which request, what the client gets of it, and what it costs. The formats' own
// tests play them to a meter, and those of the gateway play them over HTTP.
package formattest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// Vector is one recorded answer.
type Vector struct {
	Name    string          `json:"-"`
	API     string          `json:"api"`
	Engine  format.Engine   `json:"engine"`
	Request json.RawMessage `json:"request"`
	// Cut: the connection breaks after the answer. Failed: words of the backend about
	// its failure within it.
	Cut    bool   `json:"cut"`
	Failed string `json:"failed"`
	// What is charged. Every other unit but calls is 0.
	Input     int64           `json:"input"`
	Output    int64           `json:"output"`
	Searches  int64           `json:"searches"`
	Documents int64           `json:"documents"`
	Source    metering.Source `json:"source"`
	// Times is how often the section item stands in the answer, and the section text in
	// the request; 0: there are no such sections.
	Times int `json:"times"`

	// Answer is what the server sends, Client what the client gets. The comment that
	// says what an answer cost stands there as ": l402".
	Answer, Client string `json:"-"`
}

// Streamed reports whether the answer is a stream of events.
func (v *Vector) Streamed() bool {
	return !strings.HasPrefix(v.Answer, "{") && !strings.HasPrefix(v.Answer, "[")
}

// Read reads the vectors of a folder, one a file.
func Read(t testing.TB, dir string) []*Vector {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", dir, err)
	}
	var all []*Vector
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parse(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		v.Name = strings.TrimSuffix(filepath.Base(file), ".txtar")
		all = append(all, v)
	}
	return all
}

func parse(data []byte) (*Vector, error) {
	sections := map[string]string{}
	for _, f := range txtar.Parse(data).Files {
		sections[f.Name] = string(f.Data)
	}
	v := new(Vector)
	d := json.NewDecoder(strings.NewReader(sections["case.json"]))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, err
	}
	v.Answer, v.Client = sections["answer"], sections["client"]
	if v.Times > 0 {
		items := repeat(sections["item"], v.Times)
		v.Answer, v.Client = strings.ReplaceAll(v.Answer, "ITEMS", items), strings.ReplaceAll(v.Client, "ITEMS", items)
		v.Request = json.RawMessage(strings.ReplaceAll(string(v.Request), `"ITEMS"`, repeat(sections["text"], v.Times)))
	}
	if !v.Streamed() { // a document has no line end behind it
		v.Answer, v.Client = strings.TrimSuffix(v.Answer, "\n"), strings.TrimSuffix(v.Client, "\n")
	}
	return v, nil
}

// repeat is a section so many times, with its number in it.
func repeat(section string, times int) string {
	list := make([]string, times)
	for i := range list {
		list[i] = strings.ReplaceAll(strings.TrimSpace(section), "NUMBER", strconv.Itoa(i))
	}
	return strings.Join(list, ",")
}
