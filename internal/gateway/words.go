package gateway

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// maxEngineText bounds, in bytes, what a client or the operator is told of what an
// engine said.
const maxEngineText = 400

// publicWords is what an engine said of a model as a client may see it: short, with the
// name that the client asked for, and without addresses and paths of the owner's
// network.
func publicWords(text string, b *gpu.Backend, model, asked string) string {
	words := printable(replaceName(b.Redact(text), b.Upstream(model), asked))
	for i, w := range words {
		if bare := strings.Trim(w, `"'()[]{}<>,;:.!?`+"`"); bare != asked && internalName(bare, b.Host()) {
			words[i] = "…"
		}
	}
	return clip(strings.Join(words, " "))
}

// ownWords is what an engine said as the operator may see it: in its own words, with the
// name that the backend has for the model, and without the gateway's secrets.
func ownWords(text string, b *gpu.Backend) string {
	return clip(strings.Join(printable(b.Redact(text)), " "))
}

// shortHeader is a length in bytes. A shorter value of a header is not replaced in texts, because a
// secret is longer and an ordinary word may be as short.
const shortHeader = 6

// withoutHeaders returns a failure without the values of the headers that the owner set, because
// some servers repeat in their errors what they were sent.
func withoutHeaders(f format.Failure, owners http.Header) format.Failure {
	for _, values := range owners {
		for _, v := range values {
			if len(v) >= shortHeader {
				f.Message, f.Kind = strings.ReplaceAll(f.Message, v, "[redacted]"), strings.ReplaceAll(f.Kind, strings.ToLower(v), "[redacted]")
			}
		}
	}
	return f
}

// clip is the beginning of a text.
func clip(text string) string {
	if len(text) > maxEngineText {
		text = strings.ToValidUTF8(text[:maxEngineText], "") + "…"
	}
	return text
}

// printable are the words of a text.
func printable(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
}

// replaceName writes another name where a text names a model: in quotes, or as a whole
// word. A name of lower-case letters alone may be any word of a sentence, so that only
// quotes tell that the model is meant.
func replaceName(text, name, by string) string {
	if name == "" || name == by {
		return text
	}
	ordinary := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == ""
	var out strings.Builder
	rest := 0 // where what is not written yet begins
	for at := 0; ; {
		i := strings.Index(text[at:], name)
		if i < 0 {
			out.WriteString(text[rest:])
			return out.String()
		}
		start := at + i
		end := start + len(name)
		if isQuoted(text[:start], text[end:]) || !ordinary && !goesOn(text[:start], text[end:]) {
			out.WriteString(text[rest:start])
			out.WriteString(by)
			at, rest = end, end
			continue
		}
		_, size := utf8.DecodeRuneInString(text[start:])
		at = start + size
	}
}

// isQuoted reports whether what stands between two texts is in quotes.
func isQuoted(before, after string) bool {
	return before != "" && after != "" && before[len(before)-1] == after[0] && strings.IndexByte("\"'`", after[0]) >= 0
}

// goesOn reports whether what stands between two texts is a part of a longer word.
func goesOn(before, after string) bool {
	last, size := utf8.DecodeLastRuneInString(before)
	if last == '-' || last == '.' {
		last, _ = utf8.DecodeLastRuneInString(before[:len(before)-size])
	}
	first, size := utf8.DecodeRuneInString(after)
	if first == '-' || first == '.' {
		first, _ = utf8.DecodeRuneInString(after[size:])
	}
	return isOfWord(last) || isOfWord(first)
}

func isOfWord(c rune) bool {
	return c == '_' || c != utf8.RuneError && (unicode.IsLetter(c) || unicode.IsDigit(c))
}

// internalName says whether a word names a host or a file.
func internalName(word, host string) bool {
	if strings.Contains(word, "://") || strings.Contains(word, `:\`) || host != "" && strings.Contains(word, host) {
		return true
	}
	if hasPrefix(word, "/", "~/", "./", "../") && len(word) > 1 || strings.Count(word, "/") > 1 {
		return true
	}
	name, port, ok := strings.Cut(word, ":")
	_, err := strconv.ParseUint(port, 10, 16)
	if ok && err == nil && strings.Trim(name, "0123456789") != "" { // 12:30 is a time
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(word, "[]")); err == nil {
		return true
	}
	for _, zone := range []string{".local", ".internal", ".lan", ".svc", ".intra"} {
		if strings.HasSuffix(name, zone) || strings.Contains(name, zone+".") {
			return true
		}
	}
	return false
}
