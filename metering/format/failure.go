package format

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Failure is what a backend said went wrong, with a status or within its answer.
type Failure struct {
	Message string // as the backend worded it, at most MaxMessage bytes; empty: it said nothing
	Code    int    // an HTTP status, where the words name one; else 0
	Kind    string // the types and codes that came with the message, in lower case, with blanks between
	Param   string // the field of the request that it names; empty: none
}

// MaxMessage bounds the words of a backend that are passed on, in bytes.
const MaxMessage = 300

// errorWords are parts of the words with which servers say that they failed. No
// heartbeat has one of them.
var errorWords = [...]string{
	"error", "exception", "fail", "abort", "overload", "unavailable", "traceback", "crash", "panic",
	"timed out", "gateway timeout", "bad gateway", "out of memory", "too many requests",
}

// maxErrorText bounds, in bytes, how much of a text is searched for errorWords.
const maxErrorText = 4096

// SpeaksOfError reports whether a text says that something failed.
func SpeaksOfError(text []byte) bool {
	text = bytes.ToLower(text[:min(len(text), maxErrorText)])
	for _, w := range errorWords {
		if bytes.Contains(text, []byte(w)) {
			return true
		}
	}
	return false
}

// Clean makes a backend's words fit for one line of an error. It cuts between
// words, because half of a host's name would not be recognised as one.
func Clean(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if len(text) <= MaxMessage {
		return text
	}
	if end := strings.LastIndexByte(text[:MaxMessage+1], ' '); end > 0 {
		return text[:end] + " …"
	}
	end := MaxMessage
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
