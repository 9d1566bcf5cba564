package gateway

import (
	"errors"
	"net/http"
	"net/textproto"
	"strings"
)

// withheld reports whether a request header never reaches a backend, even if the owner lists it.
// Hop-by-hop headers (RFC 9110, 7.6.1) are between client and gateway. Credentials are the client's
// money. With an Accept-Encoding the backend might hide the usage from the gateway. Forwarding headers
// are only claims of the client. The gateway writes the body and the request id itself, because two
// requests with one id have crashed engines.
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

// checkForwarded returns an error if the owner may not forward a request header to backends.
func checkForwarded(name string) error {
	switch {
	case name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("want the name of a header, of letters, digits and '-'")
	case withheld(textproto.CanonicalMIMEHeaderKey(name)):
		return errors.New("the gateway writes this header itself, or it is between the client and the gateway")
	}
	return nil
}

func hasPrefix(name string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// forwardHeader returns the header of a request to a backend: what every engine needs, the gateway's
// id for the request, and the headers of the client that the service allows. Other headers are not
// forwarded, because engines read some as routing, ids or accounts.
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
		if values := client[name]; len(values) == 1 && !listed[name] { // two values of a header are ambiguous
			out[name] = values
		}
	}
	return out
}

// Nobody may write to these slices.
var acceptJSON, acceptEvents = []string{"application/json"}, []string{"text/event-stream, application/json"}

// connectionListed returns the header names that the header Connection declares to be hop-by-hop. It
// usually returns nil, which stands for an empty set.
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
