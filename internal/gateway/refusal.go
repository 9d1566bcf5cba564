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

// maxRefusal bounds how much of a backend's refusal the gateway reads, in bytes.
const maxRefusal = 64 << 10

// refusal is what a backend says when its status is not a 2xx, or when it reports a failure
// within an answer of 200.
type refusal struct {
	status int // the answer's status; within a 200: the status that its words name, else 500
	within bool
	format.Failure
}

// readRefusal reads the body of a refusal to its end, so that the connection can be used again,
// and finds the engine's message in it. owners are the headers of the request that the owner set.
func readRefusal(resp *http.Response, owners http.Header) refusal {
	r := refusal{status: resp.StatusCode}
	if decode(resp) != nil {
		resp.Body.Close()
		return r
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read counts
	resp.Body.Close()
	r.parse(body)
	r.Failure = withoutHeaders(r.Failure, owners)
	return r
}

// parse reads an error document or one line of text. Other text of several lines is dropped,
// because it is a page.
func (r *refusal) parse(body []byte) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte(byteOrderMark)))
	if f := format.ReadFailure(body); len(body) == 0 || body[0] == '{' || body[0] == '[' || !bytes.ContainsAny(body, "\n\x00") {
		r.Failure = f
	}
}

// saidWithin returns the refusal that a backend reported within an answer of 200. owners are the
// headers of the request that the owner set.
func saidWithin(f format.Failure, owners http.Header) refusal {
	r := refusal{status: f.Code, within: true, Failure: withoutHeaders(f, owners)}
	if r.status == 0 {
		r.status = http.StatusInternalServerError
	}
	return r
}

// result returns what the fleet is told of the refusal of a request for a model.
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

// denied reports whether the status is about the gateway's key or the key's rights.
func (r *refusal) denied() bool {
	return r.status == http.StatusUnauthorized || r.status == http.StatusForbidden
}

// ownersFault reports whether a refusal that is not a 5xx cannot be about the client's request:
// the backend's address is wrong or has moved, the owner's credit at the backend is used up, or
// a proxy before the backend asks the gateway for credentials.
func (r *refusal) ownersFault() bool {
	switch r.status {
	case http.StatusPaymentRequired, http.StatusProxyAuthRequired, http.StatusMisdirectedRequest:
		return true
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone: // a router's answer, not an engine's
		return r.Message == "" || format.Routine(r.Message)
	case http.StatusBadRequest: // Gemini's answer to a key that it does not know
		return strings.Contains(r.Kind, "api_key") || hasPrefix(r.Message, "API key not valid")
	case http.StatusTooManyRequests:
		return strings.Contains(r.Kind, "insufficient_quota") || strings.Contains(r.Kind, "billing")
	}
	return r.status < 400
}

// noSuchPath reports whether the status is about the path, which the owner has configured.
func (r *refusal) noSuchPath() bool {
	return r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed || r.status == http.StatusGone
}

// These words say that a service does not know a model. They count anywhere in a 404, which is
// about the path or the model. In a 400 they count only at the beginning, because later words
// may be the client's.
var (
	unknownAnywhere = []string{"not found", "not exist", "unknown", "unable to access", "no such", "not available", "not a valid"}
	unknownFirst    = []string{"model not exist", "model not found", "model does not exist", "invalid model:", "invalid model ", "unknown model", "no such model"}
	unknownCodes    = []string{"model_not_found", "model_not_available", "model_not_exist", "invalid_model", "unknown_model"}
)

// unknownModel reports whether the engine does not know the model under the name upstream. vLLM,
// SGLang, OpenAI and Ollama answer 404 and name the model; other services answer 400.
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

// blamesRequest reports whether the engine's words say that the request is at fault, where the
// status does not say so: for a 5xx, a 403, or an error within an answer. Such words can be
// wrong, so the fleet counts the accounts and the bodies to which a backend said them.
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

// public returns the engine's message as the client may see it; "" if there is no message, or
// if the message speaks of the gateway's key.
func (r *refusal) public(b *gpu.Backend, o *order) string {
	if r.NamesKey() {
		return ""
	}
	return o.words(r.Message, b)
}

// failures remembers the bodies of the last 1,024 requests that an engine failed with a message,
// because a request that fails again is not worth a retry. It is safe for concurrent use.
type failures struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]bool
	ring [1024][sha256.Size]byte
	next int
}

// again remembers the body of a failed request, and reports whether the same body failed before.
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
