package format

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Failure is what a backend said went wrong within its answer.
type Failure struct {
	Message string // as the backend worded it, at most maxMessage bytes; empty: it said nothing
	Code    int    // an HTTP status, where the backend named one; else 0
}

// MaxMessage bounds the words of a backend that are passed on, in bytes.
const MaxMessage = 300

// Client reports whether the failure is the fault of the request.
func (f Failure) Client() bool {
	return f.Code >= 400 && f.Code < 500 && f.Code != 401 && f.Code != 402 && f.Code != 403 && f.Code != 408 && f.Code != 429
}

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
