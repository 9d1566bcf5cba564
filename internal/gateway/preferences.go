package gateway

import (
	"net/http"
	"strings"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/l402"
)

// These are the request headers of the wire contract, spelled as the keys of http.Header.
const (
	headerDeposit     = "L402-Deposit-Msat"
	headerMaxCost     = "L402-Max-Cost-Msat"
	headerTruncate    = "L402-Allow-Truncate"
	headerFallback    = "L402-Allow-Fallback"
	headerNonce       = "L402-Client-Nonce"
	headerIdempotency = "Idempotency-Key"
)

// These constants bound, in bytes, what a client may choose freely.
const (
	minNonce       = 16 // a shorter nonce proves nothing, because two callers may share it
	maxNonce       = 256
	maxIdempotency = 255
	maxModelName   = 128 // the limit of the configuration
)

// preferences are a client's wishes, from the request's headers.
type preferences struct {
	deposit     l402.Msat // the smallest amount to buy, in msat; 0: no wish
	maxCost     l402.Msat // refuse a request that may cost more, in msat; -1: no limit
	truncate    bool      // lower the completion cap instead of answering 402
	fallback    string    // the second model, which may serve if no backend serves the first; "": none
	nonce       string    // identifies a caller without a token, so that its challenge can be repeated
	idempotency string
}

// preferenceRules names each header, and says for the client what the header must look like.
var preferenceRules = [...]struct{ header, rule string }{
	{headerDeposit, "must be one plain number of msat"},
	{headerMaxCost, "must be one plain number of msat"},
	{headerTruncate, "must be 1 or 0"},
	{headerFallback, "must be the name of one model"},
	{headerNonce, "must be one value of 16 to 256 random bytes"},
	{headerIdempotency, "must be one value of 1 to 255 bytes"},
}

// readPreferences reads the client's wishes from the headers of the request.
func (x *exchange) readPreferences() (err error) {
	x.prefs, err = parsePreferences(x.r.Header)
	return err
}

// parsePreferences reads a client's wishes from its headers. A value that cannot be read is a
// 400, because a mistyped limit must not be ignored.
func parsePreferences(h http.Header) (preferences, error) {
	p := preferences{maxCost: -1}
	for i := range preferenceRules {
		name := preferenceRules[i].header
		values, ok := h[name]
		if ok && (len(values) != 1 || !p.set(name, strings.TrimSpace(values[0]))) {
			return p, problem.InvalidParam(name, "the header "+name+" "+preferenceRules[i].rule)
		}
	}
	return p, nil
}

// set takes the value of one header, and reports whether the value is well-formed.
func (p *preferences) set(name, value string) bool {
	var err error
	switch name {
	case headerDeposit:
		p.deposit, err = l402.ParseMsat(value)
	case headerMaxCost:
		p.maxCost, err = l402.ParseMsat(value)
	case headerTruncate:
		p.truncate = value == "1"
		return value == "1" || value == "0"
	case headerFallback:
		p.fallback = value
		return value != "" && len(value) <= maxModelName && !strings.ContainsAny(value, ", ")
	case headerNonce:
		p.nonce = value
		return len(value) >= minNonce && len(value) <= maxNonce
	case headerIdempotency:
		p.idempotency = value
		return value != "" && len(value) <= maxIdempotency
	}
	return err == nil
}
