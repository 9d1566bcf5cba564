package gateway

import (
	"errors"

	"sluice.example/sluice/l402"
)

// standing is what a caller's credential is worth on a route.
type standing uint8

const (
	stranger standing = iota // no credential, or none that counts here: a new account
	expired                  // genuine and paid, but past its time
	holder                   // may spend
)

// identify judges the credential for the service of the request. A caller without one is
// counted by address before more of the request is read.
func (g *Gateway) identify(x *exchange) (err error) {
	x.who, err = x.authorize(x.service.Name)
	switch {
	case err != nil && !g.servesAny(x.service):
		return errNotServed
	case err != nil:
		return err
	}
	return x.admitStranger()
}

// authorize judges the token's caveats for a service ("": any). An error is
// final: no payment would help.
func (x *exchange) authorize(service string) (standing, error) {
	switch {
	case x.token != nil:
	case x.tokenErr == nil, errors.Is(x.tokenErr, l402.ErrMalformedCredential), errors.Is(x.tokenErr, l402.ErrUnknownToken):
		return stranger, nil
	default:
		return stranger, x.tokenErr
	}
	err := x.token.Authorize(service, x.g.now())
	switch {
	case err == nil:
		return holder, nil
	case errors.Is(err, l402.ErrOtherService):
		return stranger, nil
	case errors.Is(err, l402.ErrExpired):
		return expired, nil
	}
	return stranger, err
}
