package gateway

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// maxRefusal bounds, in bytes, how much of a backend's refusal is read.
const maxRefusal = 64 << 10

// refusal is what an engine says when it does not answer with a 2xx, or within an
// answer of 200.
type refusal struct {
	status int // of the answer; within a 200 the one that its words name, else 500
	within bool
	format.Failure
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

// parse reads an error document, or one line of text: what takes several is a page.
func (r *refusal) parse(body []byte) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte(byteOrderMark)))
	if f := format.ReadFailure(body); len(body) == 0 || body[0] == '{' || body[0] == '[' || !bytes.ContainsAny(body, "\n\x00") {
		r.Failure = f
	}
}

// saidWithin is what a backend said within an answer of 200.
func saidWithin(f format.Failure) refusal {
	r := refusal{status: f.Code, within: true, Failure: f}
	if r.status == 0 {
		r.status = http.StatusInternalServerError
	}
	return r
}

// result is what the fleet is told of the refusal of a request for a model.
func (r *refusal) result(b *gpu.Backend, model string) gpu.Result {
	result := gpu.Result{Status: r.status}
	switch {
	case r.unknownModel(b.Upstream(model)):
		if result.Lacks = ownWords(r.Message, b); result.Lacks == "" {
			result.Lacks = ownWords(r.Kind, b)
		}
	case r.blamesRequest():
		result.RequestFault = true
	default:
		result.Doubtful = r.denied() || r.ownersFault() || r.noSuchPath() || r.status >= 500 && r.Message != "" && r.status != http.StatusServiceUnavailable
		if r.within && (result.Doubtful || r.status >= 500) {
			result.Err = errFailedInside
		}
	}
	return result
}

// denied says whether the status speaks of the gateway's key or its rights.
func (r *refusal) denied() bool {
	return r.status == http.StatusUnauthorized || r.status == http.StatusForbidden
}

// ownersFault says whether the refusal, which is no 5xx, cannot be about what a client
// asks: the address of the backend is wrong or moved, the owner's credit there is used
// up, or a proxy on the way wants to know the gateway.
func (r *refusal) ownersFault() bool {
	switch r.status {
	case http.StatusPaymentRequired, http.StatusProxyAuthRequired, http.StatusMisdirectedRequest:
		return true
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone: // of a router, not in an engine's words
		return r.Message == "" || format.Routine(r.Message)
	case http.StatusBadRequest: // Gemini, of a key that it does not know
		return strings.Contains(r.Kind, "api_key") || hasPrefix(r.Message, "API key not valid")
	case http.StatusTooManyRequests:
		return strings.Contains(r.Kind, "insufficient_quota") || strings.Contains(r.Kind, "billing")
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
	switch r.status {
	case http.StatusNotFound, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusForbidden:
	default:
		return false
	}
	if containsAny(r.Kind, unknownCodes) {
		return true
	}
	if r.status == http.StatusForbidden {
		return false
	}
	text := strings.ToLower(r.Message)
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

// blamesRequest says whether the engine's own words lay the refusal on the request,
// where the status does not: a 5xx, a 403, or an error within an answer. Words can be
// wrong, so that the fleet counts of whom they come.
func (r *refusal) blamesRequest() bool {
	switch {
	case r.status == http.StatusForbidden:
		return r.BlamesContent()
	case r.status >= 500:
		return r.BlamesRequest() || r.within && r.BlamesContent()
	case !r.within || r.ownersFault() || r.noSuchPath():
		return false
	}
	return r.status != http.StatusUnauthorized && r.status != http.StatusRequestTimeout && r.status != http.StatusTooManyRequests
}

// public is the engine's message for the client; empty: it has none, or speaks of the
// gateway's key.
func (r *refusal) public(b *gpu.Backend, o *order) string {
	if r.NamesKey() {
		return ""
	}
	return o.words(r.Message, b)
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
