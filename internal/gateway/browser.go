package gateway

import (
	"net/http"
	"slices"
	"strings"

	"sluice.example/sluice/internal/gateway/problem"
)

// exposed are the response headers that a web page may read: what it needs to
// pay, to wait, and to know what it was charged.
const exposed = "WWW-Authenticate, " + headerCost + ", " + headerBalance + ", " + headerEpoch + ", " + headerModel + ", " + headerRequestID + ", " +
	headerSettlement + ", L402-Replayed, L402-Receipt, Payment-Receipt, X-Request-Id, Request-Id, Retry-After"

// preflightAge is how long browsers may keep the answer to a preflight, in
// seconds.
const preflightAge = "600"

// maxRequestHeaders bounds, in bytes, the header names that a preflight may ask
// for.
const maxRequestHeaders = 4 << 10

// readOrigin notes whether the answer may be read by the web page that asks. All
// answers say so, refusals and challenges too: a page could not pay otherwise.
func (x *exchange) readOrigin() {
	if !x.cat.browsers {
		return
	}
	svc := x.cat.serviceFor(x.r.Host)
	if svc == nil || len(svc.Origins) == 0 {
		return
	}
	x.varies = true
	origin := x.r.Header["Origin"]
	switch {
	case len(origin) != 1:
	case slices.Contains(svc.Origins, "*"):
		x.origin = "*"
	case slices.Contains(svc.Origins, strings.ToLower(origin[0])):
		x.origin = origin[0]
	}
}

// share sets the headers that let a web page read the answer, over whatever a
// backend said. There is no Access-Control-Allow-Credentials: the credential is a
// header that the page sets, never a cookie.
func (x *exchange) share() {
	if !x.varies {
		return
	}
	h := x.Header()
	h.Add("Vary", "Origin")
	if x.origin == "" {
		return
	}
	h["Access-Control-Allow-Origin"] = []string{x.origin}
	h["Access-Control-Expose-Headers"] = []string{exposed}
}

// isPreflight says whether a browser asks what a page may send. A page of an
// origin that is not listed gets the answer of any other OPTIONS.
func (x *exchange) isPreflight() bool {
	return x.r.Method == http.MethodOptions && x.origin != "" && x.r.Header["Access-Control-Request-Method"] != nil
}

// preflight answers it, for nothing, within the limits on strangers. Any header
// may be sent: SDKs add their own, and what is not known stays here.
func (x *exchange) preflight() {
	x.route = "preflight"
	if err := x.admitStranger(); err != nil {
		x.fail(err)
		return
	}
	wanted := strings.Join(x.r.Header["Access-Control-Request-Headers"], ", ")
	if len(wanted) > maxRequestHeaders || strings.ContainsFunc(wanted, notHeaderList) {
		x.fail(problem.InvalidParam("Access-Control-Request-Headers", "the header Access-Control-Request-Headers must be a short list of header names"))
		return
	}
	h := x.Header()
	h["Access-Control-Allow-Methods"] = []string{"GET, HEAD, POST"}
	if wanted != "" {
		h["Access-Control-Allow-Headers"] = []string{wanted}
	}
	h["Access-Control-Max-Age"] = []string{preflightAge}
	x.WriteHeader(http.StatusNoContent)
}

// notHeaderList says whether a character has no place in a list of header names.
func notHeaderList(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_, ", c))
}

// root is HEAD /: coding agents look there whether a gateway answers.
func (x *exchange) root() error {
	x.Header().Set("Cache-Control", "no-store")
	x.WriteHeader(http.StatusOK)
	return nil
}
