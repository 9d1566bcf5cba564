package openai

import (
	"strconv"
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// isFault reports whether a member of an answer says that the answer has failed. Some
// servers send it with each answer, and say in it that nothing did.
func isFault(key, value []byte) bool {
	return len(key) > 0 && key[0]|0x20 == 'e' && format.IsErrorName(key) && !namesNoError(value)
}

// namesNoError reports whether the value of an error says that there was none.
func namesNoError(v []byte) bool {
	switch v[0] {
	case '"':
		w := word(v)
		return namesNothing(w) || namesSuccess(w)
	case '[':
		for e := rawjson.Elements(v); e.More(); {
			if !namesNoError(e.Value()) {
				return false
			}
		}
		return true
	case '{':
		for w := rawjson.Members(v); w.More(); {
			if key, value := w.Member(); string(key) != "request_id" && string(key) != "id" && !namesNoError(value) {
				return false
			}
		}
		return true
	}
	n, ok := number(v)
	return saysNothing(v) || ok && n >= 200 && n < 300
}

// namesSuccess reports whether a word that may stand for an error, or a status, says
// that all is well.
func namesSuccess(word string) bool {
	switch word {
	case "ok", "okay", "success", "succeeded", "successful", "no error", "no errors", "noerror", "0", "200":
		return true
	}
	return false
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
	case "success", "ok":
		return value[0] == 'f'
	case "code", "error_code", "status_code", "statusCode":
		if n, ok := number(value); ok {
			return n >= 400 || n < 0
		}
		return rawjson.IsString(value) && isFailureCode(word(value))
	case "status":
		if n, ok := number(value); ok {
			return n >= 400 || n < 0
		}
		return rawjson.IsString(value) && isFailure(word(value))
	case "type", "object", "message", "msg", "error_type":
		return rawjson.IsString(value) && format.SpeaksOfError(rawjson.Unquote(value))
	}
	return false
}

// isFailureCode reports whether a word that stands where codes of errors stand is one.
// APIs that name their errors have a name for each, so that it cannot be known; a
// number is judged like one that is no word.
func isFailureCode(word string) bool {
	if n, err := strconv.Atoi(word); err == nil {
		return n >= 400 || n < 0
	}
	return !namesNothing(word) && !namesSuccess(word)
}

// reason is the word that a finish_reason names, in lower case. It is empty where
// it names none: some servers send "" or "None" with each chunk, or a word that says
// that the answer goes on. Some send an object with the word as its type.
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
	if w := word(v); !namesNothing(w) && !goesOn(w) {
		return w
	}
	return ""
}

// goesOn reports whether a word that stands for a finish_reason says that there is none
// yet.
func goesOn(word string) bool {
	switch word {
	case "not_finished", "unfinished", "finish_reason_unspecified", "unspecified", "in_progress", "continue", "running", "generating",
		"pending", "partial", "streaming", "no", "false", "-", "n/a":
		return true
	}
	return false
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
