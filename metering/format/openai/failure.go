package openai

import (
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// isFault reports whether a member of an answer says that the answer has failed.
func isFault(key, value []byte) bool {
	return len(key) > 0 && key[0]|0x20 == 'e' && format.IsErrorName(key) && !saysNothing(value) &&
		!(rawjson.IsString(value) && namesNothing(word(value)))
}

// word is the text of a string in lower case, without the white space around it.
func word(v []byte) string { return strings.ToLower(strings.TrimSpace(string(rawjson.Unquote(v)))) }

// namesNothing reports whether a word stands for none: Python and JavaScript
// servers write null so where they take it for text.
func namesNothing(word string) bool {
	switch word {
	case "", "null", "none", "nil", "undefined":
		return true
	}
	return false
}

// isSign reports whether a member of an object speaks of an error. It counts only
// where the object holds nothing of an answer, because there the same names may
// mean something else.
func isSign(key, value []byte) bool {
	switch string(key) {
	case "detail", "traceback":
		return !saysNothing(value)
	case "code", "status", "status_code", "statusCode":
		if n, ok := number(value); ok {
			return n >= 400 || n < 0
		}
		return rawjson.IsString(value) && format.SpeaksOfError(rawjson.Unquote(value))
	case "type", "object", "message", "msg", "error_type", "error_code":
		return rawjson.IsString(value) && format.SpeaksOfError(rawjson.Unquote(value))
	}
	return false
}

// reason is the word that a finish_reason names, in lower case. It is empty where
// it names none: some servers send "" or "None" with each chunk. Some send an
// object with the word as its type.
func reason(v []byte) string {
	for w := rawjson.Members(v); w.More(); {
		if key, value := w.Member(); string(key) == "type" && rawjson.IsString(value) {
			v = value
			break
		}
	}
	if !rawjson.IsString(v) || len(v) == 2 {
		return ""
	}
	if w := word(v); !namesNothing(w) && w != "not_finished" {
		return w
	}
	return ""
}

// isFailure reports whether a word that reason found means that the answer is not
// whole, because the backend did not come to its end.
func isFailure(reason string) bool {
	switch reason {
	case "stop", "length", "tool_calls": // nearly all
		return false
	case "cancelled", "canceled", "timeout", "timed_out", "insufficient_system_resource":
		return true
	}
	return format.SpeaksOfError([]byte(reason))
}
