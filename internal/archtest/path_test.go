package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// carried are the files of what the steps of the paid path hand on to each other, and
// challenge.go is where a request ends that is not served.
var carried = map[string]bool{"exchange.go": true, "order.go": true, "call.go": true, "challenge.go": true}

const gateway = "../gateway"

// TestPaidPathReadsDownward: each step that paid.go tells is a call into the file that the
// line names, no file is entered twice, and ARCHITECTURE.md tells the steps in the same
// order.
func TestPaidPathReadsDownward(t *testing.T) {
	declared := declarations(t)
	source, err := os.ReadFile(filepath.Join(gateway, "paid.go"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(source), "\n")
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "paid.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		room := declared[callee(call)]
		if room == "" || room == "paid.go" || carried[room] {
			return true
		}
		at := fset.Position(call.Pos())
		if line := lines[at.Line-1]; !strings.HasSuffix(line, room) {
			t.Errorf("%s: the step is in %s, and its line does not say so: %s", at, room, strings.TrimSpace(line))
		}
		for _, before := range steps {
			if before == room {
				t.Errorf("%s: %s is entered a second time", at, room)
			}
		}
		steps = append(steps, room)
		return true
	})
	if len(steps) < 10 {
		t.Fatalf("paid.go has the steps %v, which cannot be all", steps)
	}
	inOrder(t, steps)
}

// inOrder compares the steps with those that ARCHITECTURE.md tells.
func inOrder(t *testing.T, steps []string) {
	t.Helper()
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, life, _ := strings.Cut(string(text), "## Life of a request")
	life, _, _ = strings.Cut(life, "\n## ")
	told := regexp.MustCompile(`(?m)^\d+\. \*\*[a-z]+\*\* \(([^)]*)\)`).FindAllStringSubmatch(life, -1)
	next := 0
	for _, step := range steps {
		for next < len(told) && !strings.Contains(told[next][1], "`"+step+"`") {
			next++
		}
		if next == len(told) {
			t.Fatalf("ARCHITECTURE.md does not tell the step %s, or not in the order of %v", step, steps)
		}
	}
}

// declarations maps the functions and methods of the gateway to their files.
func declarations(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(gateway, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("the gateway has no files (%v)", err)
	}
	declared := map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				declared[key(f)] = filepath.Base(name)
			}
		}
	}
	return declared
}

// receivers are the names under which paid.go has a thing of the gateway.
var receivers = map[string]string{"Gateway": "g", "exchange": "x", "order": "o", "call": "c"}

// key is how paid.go calls a function.
func key(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	if p, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
		if id, ok := p.X.(*ast.Ident); ok {
			return receivers[id.Name] + "." + f.Name.Name
		}
	}
	return "." + f.Name.Name
}

func callee(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if id, ok := f.X.(*ast.Ident); ok {
			return id.Name + "." + f.Sel.Name
		}
	}
	return ""
}
