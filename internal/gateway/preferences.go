package gateway

import (
	"net/http"
	"strings"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/l402"
)

// The request headers of the wire contract, in the form in which http.Header
// keys them.
const (
	headerDeposit     = "L402-Deposit-Msat"
	headerMaxCost     = "L402-Max-Cost-Msat"
	headerTruncate    = "L402-Allow-Truncate"
	headerFallback    = "L402-Allow-Fallback"
	headerNonce       = "L402-Client-Nonce"
	headerIdempotency = "Idempotency-Key"
)

// Bounds, in bytes, on what a client may choose freely.
const (
	minNonce       = 16 // below that a nonce proves nothing: two callers may share it
	maxNonce       = 256
	maxIdempotency = 255
	maxModelName   = 128 // as the configuration has it
)

// preferences are the wishes in a request's L402-* headers.
type preferences struct {
	deposit     l402.Msat // buy at least this much; 0: no wish
	maxCost     l402.Msat // refuse above this; -1: no limit
	truncate    bool      // lower the completion cap rather than answer 402
	fallback    string    // the model that may serve where the one asked for cannot; empty: none
	nonce       string    // repeats a challenge for a caller without a token
	idempotency string
}

// preferenceRules names each header and says what it must look like.
var preferenceRules = [...]struct{ header, rule string }{
	{headerDeposit, "must be one plain number of msat"},
	{headerMaxCost, "must be one plain number of msat"},
	{headerTruncate, "must be 1 or 0"},
	{headerFallback, "must be the name of one model"},
	{headerNonce, "must be one value of 16 to 256 random bytes"},
	{headerIdempotency, "must be one value of 1 to 255 bytes"},
}

// readPreferences reads the headers of the request.
func (x *exchange) readPreferences() (err error) {
	x.prefs, err = parsePreferences(x.r.Header)
	return err
}

// parsePreferences reads the headers. What cannot be read is a 400: a misspelt
// limit must not be no limit.
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

// set takes one header's value and reports whether it was well-formed.
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
