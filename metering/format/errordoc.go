package format

import (
	"bytes"
	"net/http"
	"strings"

	"sluice.example/sluice/metering/format/rawjson"
)

// maxKind bounds, in bytes, a type or code of an error that is kept.
const maxKind = 64

// ReadFailure finds the words in what a backend sent when it failed: a JSON document
// of any form (see FailureOf), or text. A page of HTML and half a document have no words.
func ReadFailure(data []byte) Failure {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] == '<' || string(data) == EndMarker {
		return Failure{}
	}
	if end, err := rawjson.CheckValue(data, 0, rawjson.MaxDepth); err != nil || end != len(data) {
		if data[0] == '{' || data[0] == '[' {
			return Failure{}
		}
		return Failure{Message: Clean(string(data))}
	}
	return FailureOf(data)
}

// FailureOf finds the words in a JSON value that rawjson.CheckValue accepted. Known
// are OpenAI's form (vLLM, llama.cpp, Ollama, most services), the flat ones of SGLang
// and TensorRT-LLM, a bare text (TGI), FastAPI's detail, Google's list, Mistral's
// message that is an object, Cloudflare's errors, and what nests these. Those of an
// error stand above those of a message, and these above a detail; of a list the first
// element counts.
func FailureOf(v []byte) (f Failure) {
	switch v[0] {
	case '"':
		return Failure{Message: Clean(string(rawjson.Unquote(v)))}
	case '[':
		if e := rawjson.Elements(v); e.More() {
			return FailureOf(e.Value())
		}
		return f
	case '{':
	default:
		return Failure{Code: statusOf(v)}
	}
	var inner Failure
	rank := 0 // of the member that the message is from
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		if r := rankOf(key, value); r > rank && !rawjson.SaysNothing(value) {
			if said := FailureOf(value); said.Message != "" || said.Code != 0 {
				inner, rank = said, r
			}
			continue
		}
		f.describe(key, value)
	}
	f.Message = inner.Message
	if inner.Code != 0 {
		f.Code = inner.Code
	}
	f.Kind = strings.TrimSpace(inner.Kind + " " + f.Kind)
	if inner.Param != "" {
		f.Param = inner.Param
	}
	return f
}

// describe takes in a member that says what kind of failure it is.
func (f *Failure) describe(key, value []byte) {
	switch string(key) {
	case "code", "status", "status_code", "statusCode", "raw_status_code":
		f.Code = max(f.Code, statusOf(value))
	case "type", "error_type", "error_code":
	case "param":
		if rawjson.IsString(value) {
			f.Param = Clip(string(rawjson.Unquote(value)))
		}
		return
	default:
		return
	}
	if rawjson.IsString(value) && len(value) <= maxKind {
		f.Kind = strings.TrimSpace(f.Kind + " " + strings.ToLower(string(rawjson.Unquote(value))))
	}
}

// rankOf orders the members that may hold the words of a failure; 0: it holds none. The
// name of a status, as Spring and NestJS write it into error, stands below all others.
func rankOf(key, value []byte) int {
	switch string(key) {
	case "base_resp", "text", "description", "title":
		return 2
	case "detail", "reason":
		return 3
	case "message", "msg", "status_msg":
		return 4
	}
	switch {
	case !IsErrorName(key):
		return 0
	case rawjson.IsString(value) && Routine(string(rawjson.Unquote(value))):
		return 1
	}
	return 5
}

// IsErrorName reports whether a member with this name holds an error, wherever it
// stands in an answer.
func IsErrorName(key []byte) bool {
	switch strings.ToLower(string(key)) {
	case "error", "errors", "error_message", "error_msg", "errormessage", "exception":
		return true
	}
	return false
}

// statusOf is the status of an HTTP error that a value is, as a number or in a string;
// 0: it is none.
func statusOf(v []byte) int {
	if rawjson.IsString(v) {
		v = v[1 : len(v)-1]
	}
	if len(v) < 3 || v[0] < '4' || v[0] > '5' {
		return 0
	}
	if n, ok := rawjson.Whole(v); ok && n >= 400 && n <= 599 {
		return int(n)
	}
	return 0
}

// Routine reports whether words are those that any web server has for a status, such as
// "Not Found", "404 page not found" or "error code: 502": no engine said them.
func Routine(words string) bool {
	words = strings.ToLower(strings.Trim(strings.TrimSpace(words), ".!"))
	words = strings.TrimPrefix(strings.TrimPrefix(words, "http/1.1 "), "error code: ")
	status := 0
	if len(words) >= 3 && strings.Trim(words[:3], "0123456789") == "" {
		status = int(words[0]-'0')*100 + int(words[1]-'0')*10 + int(words[2]-'0')
		words = strings.TrimLeft(words[3:], " :-")
	}
	if words == "" || words == "page not found" {
		return words != "" || status >= http.StatusMultipleChoices
	}
	for status := http.StatusMultipleChoices; status < 600; status++ {
		if strings.EqualFold(words, http.StatusText(status)) {
			return true
		}
	}
	return false
}
