package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// embeddable are the rooms that other modules import.
var embeddable = []string{"l402", "l402/bolt11", "l402/client", "l402/client/lndwallet"}

// TestNoInternalTypeIsExported: what an agent's developer sees of the SDK names no
// type of an internal package, because no other module could name it.
func TestNoInternalTypeIsExported(t *testing.T) {
	for _, room := range embeddable {
		files, err := filepath.Glob(filepath.Join("..", "..", room, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no files (%v)", room, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range internalInExported(file) {
				t.Errorf("%s exports an internal type", fset.Position(at))
			}
		}
	}
}

// internalInExported finds where a file's exported declarations name internal
// packages.
func internalInExported(file *ast.File) (found []token.Pos) {
	internal := make(map[string]bool)
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		if !strings.Contains(path, "/internal/") {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		internal[name] = true
	}
	ast.FileExports(file)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BlockStmt: // what a function does inside is its own business
			return false
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && internal[pkg.Name] {
				found = append(found, n.Pos())
			}
		}
		return true
	})
	return found
}
