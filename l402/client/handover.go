package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"sluice.example/sluice/l402"
)

// handover is the JSON form of a credential that is given to another agent.
type handover struct {
	Macaroon      string   `json:"macaroon"` // standard base64
	Preimage      string   `json:"preimage"` // hex
	Authorization string   `json:"authorization"`
	TokenID       string   `json:"token_id"`
	Service       string   `json:"service"`
	Conditions    []string `json:"conditions"`
}

// Export returns the token as one JSON object for ParseCredential, secrets included. Everybody who
// reads the object can spend the token.
func (t Token) Export() ([]byte, error) {
	conditions, err := t.Conditions()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t, err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(handover{
		Macaroon: base64.StdEncoding.EncodeToString(t.Macaroon), Preimage: t.Preimage.Hex(),
		Authorization: t.Authorization(), TokenID: t.ID.String(), Service: t.Service, Conditions: conditions,
	})
	return b.Bytes(), err
}

var errHandover = errors.New(`want a line "L402 <macaroon>:<preimage>" or a JSON object with macaroon and preimage`)

// ParseCredential reads a credential from another agent. data is the object that Export makes, or
// the value of an Authorization header on one line, with or without the header's name.
// ParseCredential fails when the credential is malformed, or when an object contradicts itself. Its
// errors do not repeat any part of data.
func ParseCredential(data []byte) (l402.Credential, error) {
	text := strings.TrimSpace(string(data))
	h := http.Header{}
	if strings.HasPrefix(text, "{") {
		var o handover
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return l402.Credential{}, errHandover
		}
		if o.Macaroon != "" || o.Preimage != "" {
			h.Add("Authorization", "L402 "+o.Macaroon+":"+o.Preimage)
		}
		if o.Authorization != "" {
			h.Add("Authorization", o.Authorization)
		}
	} else {
		if name, value, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "Authorization") {
			text = value
		}
		h.Add("Authorization", text)
	}
	c, err := l402.CredentialFromHeader(h)
	switch {
	case errors.Is(err, l402.ErrConflictingCredentials):
		return l402.Credential{}, errors.New("macaroon and preimage are not those of authorization")
	case err != nil, c == nil, len(c.Others) > 0:
		return l402.Credential{}, errHandover
	}
	if id, _, err := l402.Inspect(c.Macaroon); err != nil || c.Preimage.Hash() != id.PaymentHash {
		return l402.Credential{}, errors.New("the preimage does not belong to the macaroon")
	}
	return *c, nil
}

// Import stores a credential that another agent handed over. Requests to the gateway at base then
// use this credential before older tokens, which remain in the store. Import does not connect to
// the gateway. Importing the same credential again makes it the newest again. Import fails when the
// gateway would refuse the credential. It also fails when the store holds the whole account of a
// delegated credential, or another deposit to the same account, because one token would hide or
// replace the other.
func (c *Client) Import(ctx context.Context, base string, handed l402.Credential) (Token, error) {
	origin, err := Origin(base)
	if err != nil {
		return Token{}, err
	}
	t, err := describe(origin, handed.Macaroon)
	if err != nil {
		return Token{}, fmt.Errorf("read the credential: %w", err)
	}
	t.Preimage = handed.Preimage
	now := c.cfg.Now()
	_, err = t.judge(now)
	topUp := errors.Is(err, l402.ErrExpired) && !t.Attenuated // a top-up makes the expired token valid again
	if err != nil && !topUp && !errors.Is(err, errForeign) {
		return Token{}, fmt.Errorf("the gateway would refuse the credential: %w", err)
	}
	unlock, err := c.cfg.Store.Lock(ctx, origin)
	if err != nil {
		return Token{}, err
	}
	defer unlock()
	tokens, err := c.reload(origin)
	if err != nil {
		return Token{}, err
	}
	t.CreatedAt, t.UpdatedAt = now, now
	for _, old := range tokens {
		switch {
		case old.digest() == t.digest():
			t.CreatedAt, t.Spent, t.Deposits = old.CreatedAt, old.Spent, old.Deposits
		case old.ID == t.ID && !old.Attenuated:
			return Token{}, fmt.Errorf("this store holds the account %s already: give the credential to an agent with a store of its own", t.ID)
		}
	}
	if err := c.cfg.Store.Put(t); err != nil {
		return Token{}, err
	}
	c.cfg.Log.Info("imported", "origin", origin, "token", t)
	c.origin(origin).remember(t)
	return t, nil
}

// beyondDelegation returns an error when the newest token is attenuated and the client must not
// buy. The agent that delegated the token decided how much may be spent, and the client would use a
// bought token in place of the delegated token.
func (c *Client) beyondDelegation(t Token, o *offer) error {
	switch {
	case !t.Attenuated:
		return nil
	case c.cfg.BuyBeyondDelegation:
		c.cfg.Log.Info("buying beyond a delegated token", "token", t)
		return nil
	}
	e := &BudgetError{Cap: capDelegated, Origin: o.origin}
	short := o.problem.Required != nil && o.problem.Balance != nil
	switch {
	case !t.ValidUntil.IsZero() && !c.cfg.Now().Before(t.ValidUntil):
		e.Reason = "has expired"
	case short && strings.HasSuffix(o.problem.Type, "insufficient-balance"):
		e.Asked, e.Limit = *o.problem.Required, *o.problem.Balance
		e.Reason = fmt.Sprintf("has %s left, this request may cost %s", e.Limit, e.Asked)
	default:
		e.Reason = "does not pay for this request"
	}
	return e
}
