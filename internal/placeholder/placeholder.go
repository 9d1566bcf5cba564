// Package placeholder recognizes placeholders that other programs (shells, systemd, Compose, Helm)
// would fill in. If a program used such a text as it is, the text would be a key that everybody knows,
// or the name of a directory with money in it. So the gateway's configuration fills in ${NAME} and
// refuses other placeholders (Fill), and agent-client's configuration refuses all placeholders (In):
//
//	if node.Tag != placeholder.Literal && placeholder.In(node.Value) {
//		return errors.New(placeholder.Refusal)
//	}
package placeholder

import "strings"

// Literal is the YAML tag of a value that is used as it is written.
const Literal = "!literal"

// Refusal is the error text for a configuration in which nothing is filled in. It says what is wrong
// with a value and what to do. It does not quote the value, because the value may be a secret.
const Refusal = "holds a placeholder such as ${NAME}, $NAME or %NAME%, and nothing fills it in; write the value, or put !literal before one that is meant as it stands"

// In says whether a text holds a placeholder: ${…}, $(…), {{…}}, $NAME at the end of a word, or %NAME%.
// A NAME consists of capital letters, digits and underscores, has at least two characters, and does not
// begin with a digit. So pa$$word, $2a$10$N9qo and 100% are not placeholders, because keys and
// passwords look like that. A text that is only $ and one letter is a placeholder.
func In(text string) bool {
	for _, form := range [][2]string{{"${", "}"}, {"$(", ")"}, {"{{", "}}"}} {
		if _, rest, ok := strings.Cut(text, form[0]); ok && strings.Contains(rest, form[1]) {
			return true
		}
	}
	if n := name(text, 1); len(text) == 2 && text[0] == '$' && n == 1 {
		return true // one letter, and nothing else
	}
	for i := range len(text) {
		n := name(text, i+1)
		end := i + 1 + n
		switch {
		case n < 2:
		case text[i] == '$' && (end == len(text) || !isWord(text[end])):
			return true
		case text[i] == '%' && end < len(text) && text[end] == '%' && !(isByte(text[i:]) && isByte(text[end:])):
			return true
		}
	}
	return false
}

// name returns the length of the NAME that begins at i, or 0 if there is none.
func name(text string, i int) int {
	start := i
	for i < len(text) && (text[i] == '_' || 'A' <= text[i] && text[i] <= 'Z' || i > start && isDigit(text[i])) {
		i++
	}
	return i - start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWord(c byte) bool {
	return c == '_' || isDigit(c) || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c >= 0x80
}

// isByte says whether a text begins with a percent-encoded byte, as in a URL.
func isByte(text string) bool {
	return len(text) > 2 && strings.Trim(text[1:3], "0123456789abcdefABCDEF") == ""
}
