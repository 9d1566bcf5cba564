package gateway

import (
	"errors"
	"net/http"
	"net/textproto"
	"strings"
)

// The response headers of the wire contract.
const (
	headerBalance    = "L402-Balance-Msat"
	headerCost       = "L402-Cost-Msat"
	headerEpoch      = "L402-Price-Epoch"
	headerModel      = "L402-Model" // of the model that served, where the client allowed another one
	headerRequestID  = "L402-Request-Id"
	headerSettlement = "L402-Settlement"
)

// withheld says whether a request header never reaches a backend, whatever its
// owner wants. Hop-by-hop headers (RFC 9110, 7.6.1) are between us and the client;
// credentials are the client's money; an encoding would hide the usage from us;
// forwarding headers would be the client's claim; the body is ours by now, and so
// is the id of the request, since two with one id have crashed engines.
func withheld(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Authorization", "Macaroon", "Token", "Cookie", "X-Api-Key", "Api-Key", "X-Request-Id", "Request-Id", "User-Agent",
		"Accept", "Accept-Encoding", "Content-Encoding", "Content-Length", "Content-Type", "Content-Md5", "Digest", "Expect", "Host",
		"Idempotency-Key", "X-Idempotency-Key", "Forwarded", "X-Real-Ip", "Range", "If-Match", "If-None-Match",
		"If-Modified-Since", "If-Unmodified-Since", "If-Range":
		return true
	}
	return hasPrefix(name, "L402-", "Proxy-", "Grpc-", "X-Forwarded-", "Access-Control-")
}

// checkForwarded says why a request header cannot be forwarded to backends.
func checkForwarded(name string) error {
	switch {
	case name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("want the name of a header, of letters, digits and '-'")
	case withheld(textproto.CanonicalMIMEHeaderKey(name)):
		return errors.New("the gateway writes this header itself, or it is between the client and the gateway")
	}
	return nil
}

// passes says whether a backend's response header reaches the client: what
// describes the answer. Others would act on the client in our name, describe a
// body that we rewrite, or tell about the backend. A backend's own challenge would
// send a wallet after a stranger's invoice.
func passes(name string) bool {
	switch name {
	case "Content-Type", "Content-Language", "Retry-After":
		return true
	}
	return false
}

func hasPrefix(name string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// forwardHeader is the header of a request to a backend: what every engine needs,
// our own id for the request, and those of the client's headers that the service
// allows. Engines read others as routing, ids or accounts.
func forwardHeader(client http.Header, allowed []string, stream bool, id string) http.Header {
	out := make(http.Header, 4+len(allowed))
	out["Content-Type"] = []string{"application/json"}
	if out["Accept"] = acceptJSON; stream {
		out["Accept"] = acceptEvents
	}
	out["X-Request-Id"] = []string{id}
	if len(allowed) == 0 {
		return out
	}
	listed := connectionListed(client)
	for _, name := range allowed {
		if values := client[name]; len(values) == 1 && !listed[name] { // two of a name are two meanings
			out[name] = values
		}
	}
	return out
}

// Never written to.
var acceptJSON, acceptEvents = []string{"application/json"}, []string{"text/event-stream, application/json"}

// passHeader copies what the client may see of a backend's header.
func passHeader(to, backend http.Header) {
	for name, values := range backend {
		if passes(name) && len(values) > 0 {
			to[name] = values[:1]
		}
	}
}

// connectionListed returns the header names that Connection declares to be
// hop-by-hop; nil, as good as empty, in the usual case.
func connectionListed(h http.Header) map[string]bool {
	var listed map[string]bool
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); name != "" && name != "Close" && name != "Keep-Alive" {
				if listed == nil {
					listed = map[string]bool{}
				}
				listed[name] = true
			}
		}
	}
	return listed
}
