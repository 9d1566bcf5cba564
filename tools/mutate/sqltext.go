package main

import (
	"regexp"
	"strings"
)

// sqlChange replaces the bytes from start to end of a SQL text by text.
type sqlChange struct {
	operator   string
	start, end int
	text       string
}

var (
	looksLikeSQL = regexp.MustCompile(`\b(SELECT|INSERT|UPDATE|DELETE|PRAGMA|WHERE|FROM|CREATE|synchronous_commit)\b`)
	lockClause   = regexp.MustCompile(`\s+FOR (NO KEY )?(UPDATE|SHARE)( OF \w+)?( SKIP LOCKED| NOWAIT)?\b`)
	twoArgs      = regexp.MustCompile(`(?i)\b(greatest|least|max|min)\(`)
	checkGuard   = regexp.MustCompile(`\bCHECK \(`)
	created      = regexp.MustCompile(`(?i)\bCREATE (?:OR REPLACE )?(?:UNIQUE )?` +
		`(?:FUNCTION|PROCEDURE|TABLE|INDEX|TRIGGER|VIEW)(?: IF NOT EXISTS)? (\w+)`)
	clauseEnd = regexp.MustCompile(`^(ORDER BY|GROUP BY|HAVING|LIMIT|FOR|RETURNING|ON CONFLICT|UNION|WINDOW|` +
		`LOOP|THEN|WHERE)\b`)
)

// replacements are changes of single words.
var replacements = []struct {
	operator string
	find     *regexp.Regexp // its last group is replaced
	text     string
}{
	{"sql-lock", regexp.MustCompile(`( SKIP LOCKED)\b`), ""},
	{"sql-durability", regexp.MustCompile(`synchronous_commit'?\s*(?:=|,|TO)\s*'?(on|local|remote_\w+)\b`), "off"},
	{"sql-durability", regexp.MustCompile(`synchronous=(FULL|EXTRA)\b`), "NORMAL"},
	{"sql-durability", regexp.MustCompile(`synchronous=(FULL|EXTRA|NORMAL)\b`), "OFF"},
	{"sql-durability", regexp.MustCompile(`journal_mode=(WAL)\b`), "MEMORY"},
	{"sql-conflict", regexp.MustCompile(`(\s+ON CONFLICT DO NOTHING)\b`), ""},
	{"sql-conflict", regexp.MustCompile(`INSERT OR (REPLACE)\b`), "IGNORE"},
	{"sql-conflict", regexp.MustCompile(`INSERT OR (IGNORE)\b`), "REPLACE"},
	{"sql-distinct", regexp.MustCompile(`SELECT (DISTINCT )`), ""},
	{"sql-unique", regexp.MustCompile(`CREATE (UNIQUE )INDEX`), ""},
	{"sql-boundary", regexp.MustCompile(`\s(<)\s`), "<="},
	{"sql-boundary", regexp.MustCompile(`\s(<=)\s`), "<"},
	{"sql-boundary", regexp.MustCompile(`\s(>)\s`), ">="},
	{"sql-boundary", regexp.MustCompile(`\s(>=)\s`), ">"},
	{"sql-arithmetic", regexp.MustCompile(`\s(\+)\s`), "-"},
	{"sql-arithmetic", regexp.MustCompile(`[\w)] (-) [\w(]`), "+"},
}

// sqlChanges returns the changes of a text. It returns none when the text does not look like SQL.
func sqlChanges(text string) (list []sqlChange) {
	if !looksLikeSQL.MatchString(text) {
		return nil
	}
	for _, at := range lockClause.FindAllStringIndex(text, -1) {
		list = append(list, sqlChange{"sql-lock", at[0], at[1], ""})
	}
	for _, r := range replacements {
		for _, at := range r.find.FindAllStringSubmatchIndex(text, -1) {
			list = append(list, sqlChange{r.operator, at[2], at[3], r.text})
		}
	}
	list = append(list, extremes(text)...)
	for _, at := range checkGuard.FindAllStringIndex(text, -1) {
		if end := closing(text, at[1]); end > 0 {
			list = append(list, sqlChange{"sql-check", at[0], end + 1, "CHECK (true)"})
		}
	}
	list = append(list, clauses(text)...)
	return list
}

// extremes replaces greatest(a, b) and similar functions by b alone, and by the opposite function.
func extremes(text string) (list []sqlChange) {
	opposite := map[string]string{"greatest": "least", "least": "greatest", "max": "min", "min": "max"}
	for _, at := range twoArgs.FindAllStringSubmatchIndex(text, -1) {
		end := closing(text, at[1])
		if end < 0 {
			continue
		}
		args := split(text, at[1], end, ",")
		if len(args) < 2 {
			continue
		}
		last := args[len(args)-1]
		list = append(list,
			sqlChange{"sql-extreme", at[0], end + 1, strings.TrimSpace(text[last[0]:last[1]])},
			sqlChange{"sql-extreme", at[2], at[3], opposite[strings.ToLower(text[at[2]:at[3]])]})
	}
	return list
}

// clauses makes each condition of a WHERE true, one at a time. It also removes each ORDER BY, and
// makes each ON CONFLICT DO UPDATE do nothing.
func clauses(text string) (list []sqlChange) {
	for i := range text {
		rest := text[i:]
		if i > 0 && isWord(text[i-1]) {
			continue
		}
		switch {
		case strings.HasPrefix(rest, "WHERE "):
			start := i + len("WHERE ")
			for _, c := range conditions(text, start, clause(text, start)) {
				// The condition is kept and made true, because a parameter that is no longer used
				// is an error.
				list = append(list, sqlChange{"sql-where", c[0], c[1], "(" + text[c[0]:c[1]] + " OR true)"})
			}
		case strings.HasPrefix(rest, "ORDER BY "):
			list = append(list, sqlChange{"sql-order", i, clause(text, i+len("ORDER BY ")), ""})
		case strings.HasPrefix(rest, "DO UPDATE SET "):
			list = append(list, sqlChange{"sql-conflict", i, clause(text, i+len("DO UPDATE SET ")), "DO NOTHING"})
		}
	}
	return list
}

// conditions splits a clause at its ANDs. A clause with an OR or a BETWEEN at the same level is not
// split. A clause that continues in another literal is left out.
func conditions(text string, start, end int) [][2]int {
	parts := split(text, start, end, " AND ")
	if len(split(text, start, end, " OR ")) > 1 || len(split(text, start, end, " BETWEEN ")) > 1 {
		parts = [][2]int{{start, end}}
	}
	var list [][2]int
	for _, p := range parts {
		s := strings.TrimSpace(text[p[0]:p[1]])
		if s == "" || strings.HasSuffix(s, "=") || strings.HasSuffix(s, "AND") {
			continue
		}
		from := p[0] + strings.Index(text[p[0]:p[1]], s)
		list = append(list, [2]int{from, from + len(s)})
	}
	return list
}

// clause returns the end of a clause that begins at start. It ends at the next clause, at the end
// of the statement, at a closing parenthesis that was opened before start, or at the end of the
// text.
func clause(text string, start int) int {
	depth := 0
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'':
			i = quoted(text, i)
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth < 0 {
				return i
			}
		case c == ';', c == '`', c == '"': // '`' and '"' end the Go literal
			return i
		case depth == 0 && !isWord(text[i-1]) && clauseEnd.MatchString(text[i:]):
			return i - (len(text[start:i]) - len(strings.TrimRight(text[start:i], " \n\t")))
		}
	}
	return len(text)
}

// split cuts a part of the text at each separator that is outside parentheses and quotes.
func split(text string, start, end int, separator string) (parts [][2]int) {
	depth, from := 0, start
	for i := start; i < end; i++ {
		switch c := text[i]; {
		case c == '\'':
			i = quoted(text, i)
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0 && isSeparator(text[i:end], separator):
			parts = append(parts, [2]int{from, i})
			from = i + len(separator)
			i = from - 1
		}
	}
	return append(parts, [2]int{from, end})
}

// isSeparator reports whether text begins with separator. A space in the separator matches any
// white space.
func isSeparator(text, separator string) bool {
	if len(text) < len(separator) {
		return false
	}
	for i := range len(separator) {
		white := separator[i] == ' ' && strings.IndexByte(" \n\t", text[i]) >= 0
		if !white && text[i] != separator[i] {
			return false
		}
	}
	return true
}

// closing returns the index of the parenthesis that closes the one opened before start, or -1 when
// there is none.
func closing(text string, start int) int {
	depth := 0
	for i := start; i < len(text); i++ {
		switch text[i] {
		case '\'':
			i = quoted(text, i)
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return i
			}
		}
	}
	return -1
}

// quoted returns the index of the quote that ends a quoted text.
func quoted(text string, start int) int {
	if n := strings.IndexByte(text[start+1:], '\''); n >= 0 {
		return start + 1 + n
	}
	return len(text)
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var sqlComment = regexp.MustCompile(`--[^\n]*`)

// mutateSQLFile returns the mutants of a SQL file. The name of each mutant has the last object that
// the file creates before the change.
func mutateSQLFile(path, source string) (list []*mutant) {
	text := sqlComment.ReplaceAllStringFunc(source, func(c string) string { return strings.Repeat(" ", len(c)) })
	things := created.FindAllStringSubmatchIndex(text, -1)
	for _, c := range sqlChanges(text) {
		thing := "file"
		for _, at := range things {
			if at[0] <= c.start {
				thing = text[at[2]:at[3]]
			}
		}
		list = append(list, &mutant{id: name(path, thing, c.operator, text[c.start:c.end], c.text),
			edits: []edit{{file: path, start: c.start, end: c.end, text: c.text}}})
	}
	return list
}
