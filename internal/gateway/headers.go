package gateway

import (
	"net/http"
	"net/textproto"
	"strings"
)

// The response headers of the wire contract.
const (
	headerBalance    = "L402-Balance-Msat"
	headerCost       = "L402-Cost-Msat"
	headerEpoch      = "L402-Price-Epoch"
	headerRequestID  = "L402-Request-Id"
	headerSettlement = "L402-Settlement"
)

// withheld says whether a request header stays here. Hop-by-hop headers (RFC
// 9110, 7.6.1) are between us and the client; credentials are the client's
// money; an encoding would hide the usage from us; forwarding headers would be
// the client's claim; and the body is ours by now.
func withheld(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Authorization", "Macaroon", "Token", "Cookie", "X-Api-Key", "Api-Key",
		"Accept-Encoding", "Content-Encoding", "Content-Length", "Content-Type", "Content-Md5", "Digest", "Expect", "Host",
		"Idempotency-Key", "X-Idempotency-Key", "Forwarded", "X-Real-Ip", "Range", "If-Match", "If-None-Match",
		"If-Modified-Since", "If-Unmodified-Since", "If-Range":
		return true
	}
	return hasPrefix(name, "L402-", "Proxy-", "Grpc-Metadata-", "X-Forwarded-")
}

// dropped says whether a backend's response header stays here: hop-by-hop ones,
// what would act on the client in our name, and what describes a body that we
// rewrite. A backend's own challenge would send a wallet after a stranger's
// invoice.
func dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Www-Authenticate", "Set-Cookie", "Set-Cookie2", "Alt-Svc", "Strict-Transport-Security", "Clear-Site-Data",
		"Content-Length", "Content-Encoding", "Content-Md5", "Digest", "Etag", "Accept-Ranges", "Server", "Date", "Location", "Refresh":
		return true
	}
	return hasPrefix(name, "L402-", "Proxy-", "Access-Control-")
}

func hasPrefix(name string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// forwardHeader copies what a backend may see of the client's header.
func forwardHeader(client http.Header) http.Header {
	listed := connectionListed(client)
	out := make(http.Header, len(client)+2)
	for name, values := range client {
		if !withheld(name) && !listed[name] {
			out[name] = values
		}
	}
	out["Content-Type"] = []string{"application/json"}
	return out
}

// passHeader copies what the client may see of a backend's header.
func passHeader(to, backend http.Header) {
	listed := connectionListed(backend)
	for name, values := range backend {
		if !dropped(name) && !listed[name] {
			to[name] = values
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
