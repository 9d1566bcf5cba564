package format

import (
	"net/http"
	"slices"
	"strings"
)

// What an engine's words say about whose fault a failure is. There is one such reading
// of words, for refusals by a status and for errors within an answer of 200. It may be
// wrong: a caller that goes by it counts of how many accounts such words come.

// hopeless are parts of the texts and types by which engines lay a failure on the
// request: llama.cpp ("image input is not supported", "the request exceeds the available
// context size"), Ollama ("does not support tools", "missing data required for image
// input"), vLLM ("is not a multimodal model"), TGI ("Input validation error"), pydantic
// ("Input should be …"), and hosted services.
var hopeless = []string{
	"not supported", "unsupported", "does not support", "doesn't support", "not a multimodal", "data required for image",
	"invalid_request", "badrequest", "bad_request", "invalid_argument", "unprocessable", "context_length", "string_above_max_length",
	"extra_forbidden", "exceeds the available context", "maximum context length", "context length exceeded",
	"exceeds the maximum number of tokens", "prompt is too long", "prompt too long", "input is too long", "input validation error",
	"extra inputs are not permitted", "input should be", "failed to parse", "invalid grammar", "invalid json schema",
}

// refusedContent are parts of the texts and types by which services say that they do
// not answer what the prompt asks.
var refusedContent = []string{
	"flagged", "moderation", "content policy", "content_policy", "content filter", "content_filter", "content management",
	"guardrail", "harmful", "inappropriate", "jailbreak", "illicit", "prohibited content", "prohibited_content", "safety system",
	"safety filter", "your input", "your prompt", "the prompt", "the input",
}

// machinery are parts of the texts of an engine whose machine is at fault, whatever
// else they say: "CUDA error: the provided PTX was compiled with an unsupported
// toolchain" is a driver that is too old.
var machinery = []string{"cuda", "cublas", "cudnn", "nccl", "hip error", "rocm", "ptx", "driver", "out of memory", "device-side", "gpu "}

// keys and credentials are parts of the texts and types that speak of the gateway's key, and
// accounts of what the key may do there, or of whom it belongs to.
var (
	keys        = []string{"api key", "api_key", "apikey", "api-key"}
	credentials = []string{"authentication", "unauthenticated", "credential", "insufficient_quota", "billing"}
	accounts    = []string{
		"permission", "unauthorized", "not authorized", "authorization", "scope", "access token", "bearer", "access denied", "have access",
		"account", "organization", "project", "workspace", "credit", "balance", "quota", "subscription", "suspended", "region", "country",
		"territory", "ip address", "key limit",
	}
)

func (f *Failure) has(parts ...[]string) bool {
	text := f.Kind + " " + strings.ToLower(f.Message)
	for _, list := range parts {
		if slices.ContainsFunc(list, func(part string) bool { return strings.Contains(text, part) }) {
			return true
		}
	}
	return false
}

// BlamesRequest reports whether the words, or the status that they name, lay the failure
// on the request: another backend of the same kind would not serve it either.
func (f *Failure) BlamesRequest() bool {
	if f.has(machinery, keys, credentials) {
		return false
	}
	switch f.Code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return strings.Contains(" "+f.Kind+" ", " validation ") || f.has(hopeless)
}

// BlamesContent reports whether the words say that the prompt was understood and is not
// answered for what it asks.
func (f *Failure) BlamesContent() bool {
	return f.has(refusedContent) && !f.has(keys, credentials, []string{"your account", "organization", "project"})
}

// BlamesOwner reports whether the words speak of the gateway's key, what it may do, or
// what the owner pays there: nothing for the eyes of a client.
func (f *Failure) BlamesOwner() bool { return f.has(keys, credentials, accounts) }

// NamesKey reports whether the words may name the gateway's key itself.
func (f *Failure) NamesKey() bool { return f.has(keys) }
