package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// goFile holds one Go file while its mutants are made.
type goFile struct {
	path   string
	source []byte
	set    *token.FileSet
	list   []*mutant
	stack  []ast.Node // the nodes from the file down to the current node
}

// mutateGo returns the mechanical mutants of a Go file.
func mutateGo(path string, source []byte) ([]*mutant, error) {
	g := &goFile{path: path, source: source, set: token.NewFileSet()}
	file, err := parser.ParseFile(g.set, path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if n == nil {
			g.stack = g.stack[:len(g.stack)-1]
			return true
		}
		g.stack = append(g.stack, n)
		g.mutate(n)
		return true
	})
	return g.list, nil
}

func (g *goFile) mutate(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		g.binary(n)
	case *ast.UnaryExpr:
		if _, literal := n.X.(*ast.BasicLit); n.Op == token.SUB && !literal {
			g.swap("sign", n, n.OpPos, "-", "")
		}
		if n.Op == token.NOT {
			g.swap("negate", n, n.OpPos, "!", "")
		}
	case *ast.AssignStmt:
		switch n.Tok {
		case token.ADD_ASSIGN:
			g.swap("arithmetic", n, n.TokPos, "+=", "-=")
		case token.SUB_ASSIGN:
			g.swap("arithmetic", n, n.TokPos, "-=", "+=")
		}
	case *ast.IncDecStmt:
		// In the head of a loop the mutant would only run for ever.
		if loop, head := g.parent().(*ast.ForStmt); !head || loop.Post != n {
			other := map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok]
			g.swap("arithmetic", n, n.TokPos, n.Tok.String(), other)
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 1 && (f.Name == "min" || f.Name == "max") {
			other := map[string]string{"min": "max", "max": "min"}[f.Name]
			g.swap("minmax", n, f.Pos(), f.Name, other)
		}
	case *ast.Ident:
		g.boolean(n)
	case *ast.ReturnStmt:
		g.returnedError(n)
	case *ast.BlockStmt:
		g.statements(n.List)
	case *ast.CaseClause:
		g.statements(n.Body)
		g.replace("drop-case", n, "")
	case *ast.CommClause:
		g.statements(n.Body)
	case *ast.BasicLit:
		if n.Kind == token.STRING && !g.isTag(n) {
			g.sql(n)
		}
	}
}

// These tables map each operator to the operator that replaces it.
var (
	boundary = map[token.Token]token.Token{
		token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	}
	negation = map[token.Token]token.Token{
		token.LSS: token.GEQ, token.LEQ: token.GTR, token.GTR: token.LEQ, token.GEQ: token.LSS,
		token.EQL: token.NEQ, token.NEQ: token.EQL,
	}
	arithmetic = map[token.Token]token.Token{token.ADD: token.SUB, token.SUB: token.ADD}
	logic      = map[token.Token]token.Token{token.LAND: token.LOR, token.LOR: token.LAND}
)

func (g *goFile) binary(n *ast.BinaryExpr) {
	for _, o := range []struct {
		name string
		to   map[token.Token]token.Token
	}{{"boundary", boundary}, {"negate", negation}, {"arithmetic", arithmetic}, {"logic", logic}} {
		if to, ok := o.to[n.Op]; ok && (n.Op != token.ADD || !isText(n)) {
			g.swap(o.name, n, n.OpPos, n.Op.String(), to.String())
		}
	}
}

// isText reports whether a sum contains a string literal. It does not recognize a sum of two string
// variables, but then the mutant, a difference of strings, does not compile.
func isText(n ast.Expr) bool {
	switch n := n.(type) {
	case *ast.BasicLit:
		return n.Kind == token.STRING
	case *ast.BinaryExpr:
		return n.Op == token.ADD && (isText(n.X) || isText(n.Y))
	}
	return false
}

// boolean replaces the literal true by false, and false by true.
func (g *goFile) boolean(n *ast.Ident) {
	other, ok := map[string]string{"true": "false", "false": "true"}[n.Name]
	if !ok {
		return
	}
	if kv, ok := g.parent().(*ast.KeyValueExpr); ok && kv.Key == n {
		return
	}
	// The name shows the surrounding statement or expression, because "true" alone says nothing.
	g.swap("boolean", g.parent(), n.Pos(), n.Name, other)
}

// returnedError makes a function that fails return a nil error.
func (g *goFile) returnedError(n *ast.ReturnStmt) {
	if len(n.Results) == 0 || !g.returnsError(len(n.Results)) {
		return
	}
	last := n.Results[len(n.Results)-1]
	if id, ok := last.(*ast.Ident); ok && id.Name == "nil" {
		return
	}
	g.swap("nil-error", n, last.Pos(), g.text(last), "nil")
}

// returnsError reports whether the current function has n results and the last result is an error.
func (g *goFile) returnsError(n int) bool {
	for i := len(g.stack) - 1; i >= 0; i-- {
		var t *ast.FuncType
		switch f := g.stack[i].(type) {
		case *ast.FuncLit:
			t = f.Type
		case *ast.FuncDecl:
			t = f.Type
		default:
			continue
		}
		if t.Results == nil || t.Results.NumFields() != n {
			return false
		}
		id, ok := t.Results.List[len(t.Results.List)-1].Type.(*ast.Ident)
		return ok && id.Name == "error"
	}
	return false
}

// statements deletes each statement that can be missing, one per mutant. Declarations and returns
// cannot be missing.
func (g *goFile) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if !isLog(s.X) {
				g.replace("delete", s, "")
			}
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE && !allBlank(s.Lhs) {
				g.replace("delete", s, "")
			}
		case *ast.IncDecStmt, *ast.SendStmt, *ast.DeferStmt, *ast.GoStmt:
			g.replace("delete", s, "")
		case *ast.IfStmt:
			if s.Else == nil && leaves(s.Body) {
				g.replace("drop-guard", s, "")
			}
		}
	}
}

// leaves reports whether a block ends by leaving the code around it. The block's condition then
// guards the code that follows.
func leaves(b *ast.BlockStmt) bool {
	if len(b.List) == 0 {
		return false
	}
	switch b.List[len(b.List)-1].(type) {
	case *ast.ReturnStmt, *ast.BranchStmt:
		return true
	}
	return false
}

// isLog reports whether a call only writes to a log.
func isLog(x ast.Expr) bool {
	for {
		switch n := x.(type) {
		case *ast.CallExpr:
			x = n.Fun
		case *ast.SelectorExpr:
			if n.Sel.Name == "log" {
				return true
			}
			x = n.X
		default:
			return false
		}
	}
}

func allBlank(list []ast.Expr) bool {
	for _, x := range list {
		if id, ok := x.(*ast.Ident); !ok || id.Name != "_" {
			return false
		}
	}
	return true
}

// sql adds the mutants of the SQL in a string literal.
func (g *goFile) sql(n *ast.BasicLit) {
	at := g.offset(n.Pos())
	for _, c := range sqlChanges(n.Value) {
		g.add(c.operator, n.Value[c.start:c.end], c.text, edit{start: at + c.start, end: at + c.end, text: c.text})
	}
}

func (g *goFile) isTag(n *ast.BasicLit) bool {
	switch p := g.parent().(type) {
	case *ast.Field:
		return p.Tag == n
	case *ast.ImportSpec:
		return true
	}
	return false
}

// swap adds a mutant that replaces one token of a node, at pos.
func (g *goFile) swap(operator string, n ast.Node, pos token.Pos, old, text string) {
	at, start := g.offset(pos), g.offset(n.Pos())
	before := g.text(n)
	after := before[:at-start] + text + before[at-start+len(old):]
	g.add(operator, before, after, edit{start: at, end: at + len(old), text: text})
}

// replace adds a mutant that replaces a whole node.
func (g *goFile) replace(operator string, n ast.Node, text string) {
	g.add(operator, g.text(n), text, edit{start: g.offset(n.Pos()), end: g.offset(n.End()), text: text})
}

func (g *goFile) add(operator, before, after string, e edit) {
	e.file = g.path
	if e.text == "" { // keep the line numbers of the code that follows
		e.text = strings.Repeat("\n", strings.Count(string(g.source[e.start:e.end]), "\n"))
	}
	g.list = append(g.list, &mutant{id: name(g.path, g.function(), operator, before, after), edits: []edit{e}})
}

// function returns the name of the current function or of the current package-level declaration.
func (g *goFile) function() string {
	for _, n := range g.stack {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv != nil {
				return typeName(n.Recv.List[0].Type) + "." + n.Name.Name
			}
			return n.Name.Name
		case *ast.ValueSpec:
			return n.Names[0].Name
		case *ast.TypeSpec:
			return n.Name.Name
		}
	}
	return "package"
}

func typeName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return typeName(x.X)
	case *ast.IndexExpr:
		return typeName(x.X)
	case *ast.IndexListExpr:
		return typeName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}

func (g *goFile) parent() ast.Node { return g.stack[len(g.stack)-2] }

func (g *goFile) offset(p token.Pos) int { return g.set.Position(p).Offset }

func (g *goFile) text(n ast.Node) string {
	return string(g.source[g.offset(n.Pos()):g.offset(n.End())])
}
