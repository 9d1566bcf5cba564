package placeholder

import (
	"errors"
	"fmt"
	"strings"
)

// ErrForm refuses a placeholder that Fill cannot fill in. It does not quote the text, because the text
// may be a secret.
var ErrForm = errors.New("holds a placeholder that nothing fills in; write ${NAME} for an environment variable, $${NAME} for that very text, " +
	"or put !literal before a value that is meant as it stands")

// Fill replaces each ${NAME} of a text by the environment variable NAME. A NAME consists of letters,
// digits and underscores, and does not begin with a digit. $${NAME} means the text ${NAME} itself.
// filled holds the values that were put in. They are not searched for placeholders, and may be secrets.
// A variable that is not set, or is empty, is an error that names the variable. Every other placeholder
// (see In) is ErrForm.
func Fill(text string, getenv func(string) string) (out string, filled []string, err error) {
	var b, own strings.Builder // own is the text without the filled-in values
	for {
		before, rest, found := strings.Cut(text, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			b.WriteString(text)
			own.WriteString(text)
			break
		}
		if escaped := strings.HasSuffix(before, "$"); escaped {
			b.WriteString(before + "{" + name + "}")
			own.WriteString(strings.TrimSuffix(before, "$") + " ")
			text = after
			continue
		}
		if !isName(name) {
			return "", nil, ErrForm
		}
		value := getenv(name)
		if value == "" {
			return "", nil, fmt.Errorf("the environment variable %s is not set, or is empty; set it, or write $${%s} for that very text", name, name)
		}
		b.WriteString(before + value)
		own.WriteString(before + " ")
		filled = append(filled, value)
		text = after
	}
	if In(own.String()) {
		return "", nil, ErrForm
	}
	return b.String(), filled, nil
}

// isName says whether a text can be the name of an environment variable.
func isName(text string) bool {
	for i := range len(text) {
		if !isWord(text[i]) || text[i] >= 0x80 || i == 0 && isDigit(text[i]) {
			return false
		}
	}
	return text != "" && len(text) <= 256
}
