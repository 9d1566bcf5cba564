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

// UnseenTokenError reports that a gateway offered a new account although a stored
// token was sent that should have credit left. Paying would open one account after
// the other, so nothing was paid.
type UnseenTokenError struct {
	Origin string
	Token  string // Token.Name
}

// Error says what can be the matter.
func (e *UnseenTokenError) Error() string {
	return fmt.Sprintf("%s offers a new account although the token %s was sent, in Authorization and in Macaroon: nothing was paid. "+
		"A proxy on the way may drop both headers; let it pass them. If the gateway no longer knows the token, ask its operator, "+
		"or buy a new account on purpose", e.Origin, e.Token)
}

// WithNewAccount returns a context under which a 402 that offers a new account is
// paid although a stored token was sent. It is for a person who knows that the
// gateway has lost or revoked the old one.
func WithNewAccount(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyNewAccount, true)
}

// unseen reports whether an offer shows that the gateway did not see the token that
// was sent, or did not take it for one of its own.
//
// A gateway like ours tops up the account of each token that it knows; only for a
// delegated one it offers a new account, and says its balance. One of another make
// may always offer a new account; there a token that was never served counts as
// unseen, because buying another one would end the same way.
func (t *trip) unseen(o *offer, token Token) bool {
	switch {
	case o.token.ID == token.ID, t.req.Context().Value(keyNewAccount) != nil:
		return false
	case token.Service != "" && o.token.Service != "" && token.Service != o.token.Service:
		return false // it is for something else that is sold there
	case token.Attenuated:
		return o.problem.Balance == nil
	}
	return token.topsUp() || !token.Served
}

// topsUp reports whether the token's gateway keeps a balance for it: a gateway like
// ours ends what it mints with the deposit.
func (t Token) topsUp() bool {
	_, conditions, err := l402.Inspect(t.Macaroon)
	return err == nil && slices.ContainsFunc(conditions, func(c string) bool { return strings.HasPrefix(c, t.Service+"_deposit_msat=") })
}

// present puts the token into the headers of a request.
func (t *trip) present(h http.Header, token Token) {
	h.Set("Authorization", token.Authorization())
	if t.both {
		if m, err := token.macaroonHeader(); err == nil { // else Authorization has to do
			h.Set("Macaroon", m)
		}
	}
}

// macaroonHeader returns the value of the header Macaroon: hex with the preimage as
// a caveat.
func (t Token) macaroonHeader() (string, error) {
	m, err := l402.Attenuate(t.Macaroon, preimagePrefix+t.Preimage.Hex())
	return hex.EncodeToString(m), err
}

// learn notes what the end of the trip shows: which headers arrive, and that a
// token was served.
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

// served records that a gateway took the token.
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
