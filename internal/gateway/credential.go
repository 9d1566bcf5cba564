package gateway

import (
	"errors"

	"sluice.example/sluice/l402"
)

// standing says what a caller's credential is worth on a route.
type standing uint8

const (
	stranger standing = iota // no credential, or one that does not count here; a payment opens a new account
	expired                  // the token is genuine and paid, and has expired
	holder                   // the caller may spend
)

// identify checks the credential for the service of the request. It counts a caller without a
// token by address before the gateway reads more of the request.
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

// authorize checks the token's caveats for a service; "" stands for any service. After an error
// no payment would help.
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
