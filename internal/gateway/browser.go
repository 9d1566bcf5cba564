package gateway

import (
	"net/http"
	"slices"
	"strings"

	"sluice.example/sluice/internal/gateway/problem"
)

// exposed names the response headers that a web page may read. The page needs them to pay, to wait, and
// to know what it was charged.
const exposed = "WWW-Authenticate, " + headerCost + ", " + headerBalance + ", " + headerEpoch + ", " + headerModel + ", " + headerRequestID + ", " +
	headerSettlement + ", L402-Replayed, L402-Receipt, Payment-Receipt, X-Request-Id, Request-Id, Retry-After"

// preflightAge is how long browsers may keep the answer to a preflight, in seconds.
const preflightAge = "600"

// maxRequestHeaders bounds the header names that a preflight may ask for, in bytes.
const maxRequestHeaders = 4 << 10

// readOrigin notes whether the web page that asks may read the answer. share sets the headers for it on
// all answers, problems and 402s too, because otherwise a page could not pay.
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

// share sets the headers that let a web page read the answer. They replace those of a backend.
// There is no Access-Control-Allow-Credentials, because the credential is a header that the page
// sets, never a cookie.
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

// isPreflight reports whether a browser asks what a page may send. If the page's origin is not
// listed, the request is answered like any other OPTIONS.
func (x *exchange) isPreflight() bool {
	return x.r.Method == http.MethodOptions && x.origin != "" && x.r.Header["Access-Control-Request-Method"] != nil
}

// preflight answers a preflight. It is free, and counts against the limits on callers without a
// token. The page may send any header, because SDKs add their own headers; the gateway does not
// forward them.
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

// notHeaderList reports whether a character cannot be in a list of header names.
func notHeaderList(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_, ", c))
}

// root answers HEAD /, by which coding agents check whether a gateway answers.
func (x *exchange) root() error {
	x.Header().Set("Cache-Control", "no-store")
	x.WriteHeader(http.StatusOK)
	return nil
}
