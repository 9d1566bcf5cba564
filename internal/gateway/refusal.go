package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"sluice.example/sluice/backends/gpu"
)

// maxRefusal bounds, in bytes, how much of a backend's refusal is read.
const maxRefusal = 64 << 10

// maxEngineText bounds, in bytes, what a client is told of it.
const maxEngineText = 400

// refusal is what an engine says when it does not answer with a 2xx.
type refusal struct {
	status  int
	message string // empty: it gave none that can be read
	kind    string // type and code, in lower case
	param   string // the field that it names
}

// readRefusal reads the body of a refusal into memory, so that its connection is
// of use to others, and finds the engine's message.
func readRefusal(resp *http.Response) refusal {
	r := refusal{status: resp.StatusCode}
	if decode(resp) != nil {
		resp.Body.Close()
		return r
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read counts
	resp.Body.Close()
	r.parse(body)
	return r
}

// parse knows the forms of errors in use: OpenAI's (vLLM, llama.cpp, Ollama, most
// services), the flat ones of SGLang and TensorRT-LLM, a bare text (TGI), and
// FastAPI's detail, which is a text or a list.
func (r *refusal) parse(body []byte) {
	type plain struct {
		Message string `json:"message"`
		Type    any    `json:"type"`
		Code    any    `json:"code"`
		Param   any    `json:"param"`
	}
	var form struct {
		plain
		Error     json.RawMessage `json:"error"`
		ErrorType any             `json:"error_type"`
		Detail    json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(body, &form) != nil {
		return
	}
	said := form.plain
	if len(form.Error) > 0 {
		var inner plain
		if json.Unmarshal(form.Error, &inner) == nil {
			said = inner
		} else {
			_ = json.Unmarshal(form.Error, &said.Message) // no text: there is none
		}
	}
	if said.Message == "" && len(form.Detail) > 0 {
		var list []struct {
			Msg string `json:"msg"`
		}
		if json.Unmarshal(form.Detail, &said.Message) != nil && json.Unmarshal(form.Detail, &list) == nil && len(list) > 0 {
			said.Message = list[0].Msg
		}
	}
	text := func(v any) string { s, _ := v.(string); return s }
	r.message = strings.TrimSpace(said.Message)
	r.kind = strings.ToLower(text(said.Type) + " " + text(said.Code) + " " + text(form.ErrorType))
	r.param = text(said.Param)
}

// result is what the fleet is told of the refusal of a request for the model that the
// backend calls upstream.
func (r *refusal) result(upstream string) gpu.Result {
	result := gpu.Result{Status: r.status}
	switch {
	case r.unknownModel(upstream):
		result.Lacks = r.message
	case r.blamesRequest():
		result.RequestFault = true
	default:
		result.Doubtful = r.ownersFault() || r.noSuchPath() || r.status >= 500 && r.message != "" && r.status != http.StatusServiceUnavailable
	}
	return result
}

// ownersFault says whether the refusal, which is no 5xx, cannot be about what a client
// asks: the address of the backend is wrong or moved, the owner's credit there is used
// up, or a proxy on the way wants to know the gateway.
func (r *refusal) ownersFault() bool {
	switch r.status {
	case http.StatusPaymentRequired, http.StatusProxyAuthRequired, http.StatusMisdirectedRequest:
		return true
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone: // of a router, not in an engine's words
		return r.message == "" || strings.EqualFold(r.message, http.StatusText(r.status))
	case http.StatusTooManyRequests:
		return strings.Contains(r.kind, "insufficient_quota") || strings.Contains(r.kind, "billing")
	}
	return r.status < 400
}

// noSuchPath says whether the status speaks of the path, which the owner has chosen.
func (r *refusal) noSuchPath() bool {
	return r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed || r.status == http.StatusGone
}

// Words by which services say that they do not know a model: anywhere in a 404,
// which is about the path or the model, and at the beginning of a 400, whose later
// words may be the client's.
var (
	unknownAnywhere = []string{"not found", "not exist", "unknown", "unable to access", "no such", "not available", "not a valid"}
	unknownFirst    = []string{"model not exist", "model not found", "model does not exist", "invalid model:", "invalid model ", "unknown model", "no such model"}
	unknownCodes    = []string{"model_not_found", "model_not_available", "model_not_exist", "invalid_model", "unknown_model"}
)

// unknownModel says whether the engine does not know the model that it was asked
// for as upstream: vLLM, SGLang, OpenAI and Ollama answer 404 and name it, other
// services answer 400.
func (r *refusal) unknownModel(upstream string) bool {
	if r.status != http.StatusNotFound && r.status != http.StatusBadRequest && r.status != http.StatusUnprocessableEntity {
		return false
	}
	if containsAny(r.kind, unknownCodes) {
		return true
	}
	text := strings.ToLower(r.message)
	if r.status == http.StatusNotFound {
		return strings.Contains(text, "model") && containsAny(text, unknownAnywhere)
	}
	text = strings.TrimLeft(text, `"'`+"`")
	if rest, named := strings.CutPrefix(text, strings.ToLower(upstream)); named {
		return strings.Contains(rest, "model") && containsAny(rest, unknownAnywhere)
	}
	return hasPrefix(strings.TrimPrefix(text, "the "), unknownFirst...)
}

func containsAny(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

// hopeless are parts of the texts with which engines refuse, by a 5xx, what they
// can never serve: llama.cpp ("image input is not supported", "the request
// exceeds the available context size"), Ollama ("does not support tools", "missing
// data required for image input"), vLLM ("is not a multimodal model"), and types of
// error that say so.
var hopeless = []string{
	"not supported", "unsupported", "does not support", "doesn't support", "not a multimodal", "data required for image",
	"invalid_request", "badrequest", "bad_request", "exceeds the available context", "maximum context length",
	"context length exceeded",
	"failed to parse", "invalid grammar", "invalid json schema",
}

// machinery are parts of the texts of an engine whose machine is at fault, whatever
// else they say: "CUDA error: the provided PTX was compiled with an unsupported
// toolchain" is a driver that is too old.
var machinery = []string{"cuda", "cublas", "cudnn", "nccl", "hip error", "rocm", "ptx", "driver", "out of memory", "device-side", "gpu "}

// blamesRequest says whether the engine's own words lay a 5xx on the request.
func (r *refusal) blamesRequest() bool {
	text := r.kind + " " + strings.ToLower(r.message)
	return r.status >= 500 && containsAny(text, hopeless) && !containsAny(text, machinery)
}

// public is the engine's message for the client.
func (r *refusal) public(b *gpu.Backend, model string) string {
	return publicWords(r.message, b, model)
}

// publicWords is what an engine said as a client may see it: short, with the
// model's public name, and without addresses and paths of the owner's network.
func publicWords(text string, b *gpu.Backend, model string) string {
	text = strings.ReplaceAll(text, b.Upstream(model), model)
	words := strings.FieldsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
	for i, w := range words {
		if bare := strings.Trim(w, `"'()[]{}<>,;:.!?`+"`"); bare != model && internalName(bare, b.Host()) {
			words[i] = "…"
		}
	}
	text = strings.Join(words, " ")
	if len(text) > maxEngineText {
		text = strings.ToValidUTF8(text[:maxEngineText], "") + "…"
	}
	return text
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

// failures remembers the bodies of the last requests that an engine failed with a
// message: one that fails again is not worth a further try. It is safe for
// concurrent use.
type failures struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]bool
	ring [1024][sha256.Size]byte
	next int
}

// again notes a failure and says whether the same body has failed before.
func (f *failures) again(body []byte) bool {
	key := sha256.Sum256(bytes.TrimSpace(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[key] {
		return true
	}
	if f.seen == nil {
		f.seen = make(map[[sha256.Size]byte]bool, len(f.ring))
	}
	delete(f.seen, f.ring[f.next])
	f.seen[key], f.ring[f.next] = true, key
	f.next = (f.next + 1) % len(f.ring)
	return false
}
