package client

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sluice.example/sluice/l402"
)

// UnseenTokenError reports that a gateway offered a new account although the client sent a stored
// token that should have credit left. Nothing was paid, because paying would open a new account for
// each such request.
type UnseenTokenError struct {
	Origin string
	Token  string // Token.Name
}

// Error returns the likely causes.
func (e *UnseenTokenError) Error() string {
	return fmt.Sprintf("%s offers a new account although the token %s was sent, in Authorization and in Macaroon: nothing was paid. "+
		"A proxy on the way may drop both headers; let it pass them. If the gateway no longer knows the token, ask its operator, "+
		"or buy a new account on purpose", e.Origin, e.Token)
}

// WithNewAccount returns a context for requests that may pay for a new account although a stored
// token was sent. It is for a person who knows that the gateway has lost or revoked the old
// account.
func WithNewAccount(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyNewAccount, true)
}

// unseen reports whether an offer shows that the gateway did not see the token that was sent, or
// did not recognise the token.
//
// A gateway of this project tops up the account of each token that it knows. Only for a delegated
// token it offers a new account, and then the offer states the token's balance. A gateway with
// other software may always offer a new account. For such a gateway a token that was never served
// counts as unseen, because a second token would also not be served.
func (t *trip) unseen(o *offer, token Token) bool {
	switch {
	case o.token.ID == token.ID, t.req.Context().Value(keyNewAccount) != nil:
		return false
	case token.Service != "" && o.token.Service != "" && token.Service != o.token.Service:
		return false // the offer is for another service of this origin
	case token.Attenuated:
		return o.problem.Balance == nil
	}
	return token.topsUp() || !token.Served
}

// topsUp reports whether the token's gateway keeps a balance for it. A gateway of this project
// does, and it writes a deposit condition into each token that it mints.
func (t Token) topsUp() bool {
	_, conditions, err := l402.Inspect(t.Macaroon)
	return err == nil && slices.ContainsFunc(conditions, func(c string) bool { return strings.HasPrefix(c, t.Service+"_deposit_msat=") })
}

// present puts the token into the headers of a request.
func (t *trip) present(h http.Header, token Token) {
	h.Set("Authorization", token.Authorization())
	if t.both {
		if m, err := token.macaroonHeader(); err == nil { // on an error only Authorization is sent
			h.Set("Macaroon", m)
		}
	}
}

// macaroonHeader returns the value of the header Macaroon: the macaroon in hex, with the preimage
// as a caveat.
func (t Token) macaroonHeader() (string, error) {
	m, err := l402.Attenuate(t.Macaroon, preimagePrefix+t.Preimage.Hex())
	return hex.EncodeToString(m), err
}

// learn records what a successful answer shows: which headers reach the gateway, and that the
// gateway served the token.
func (t *trip) learn(token Token, have bool, resp *http.Response) {
	if !have || resp == nil || resp.StatusCode/100 != 2 {
		return
	}
	st := t.c.origin(t.origin)
	if t.both {
		st.sendBoth()
	}
	if token.Served || token.topsUp() || !st.sells(t.req.URL.Path) {
		return
	}
	if err := t.c.served(t.req.Context(), token); err != nil {
		t.c.cfg.Log.Warn("the token was served, which could not be stored", "token", token, "error", err)
	}
}

// served records in the store that a gateway accepted the token.
func (c *Client) served(ctx context.Context, served Token) error {
	unlock, err := c.cfg.Store.Lock(ctx, served.Origin)
	if err != nil {
		return err
	}
	defer unlock()
	tokens, err := c.reload(served.Origin)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tokens, func(t Token) bool { return t.digest() == served.digest() })
	if i < 0 || tokens[i].Served {
		return nil
	}
	tokens[i].Served = true
	if err := c.cfg.Store.Put(tokens[i]); err != nil {
		return err
	}
	_, err = c.reload(served.Origin)
	return err
}
