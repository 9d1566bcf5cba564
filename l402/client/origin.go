package client

import (
	"context"
	"slices"
	"sync"

	"sluice.example/sluice/l402"
)

// originState is what this process knows about one origin.
type originState struct {
	opening sync.Mutex // held while the store is first read for this origin
	opened  bool       // the store was read; guarded by opening

	mu     sync.Mutex
	tokens []Token           // newest first; guarded by mu
	paths  map[string]string // path of a challenge to the service that the challenge named; guarded by mu
	both   bool              // the gateway only sees the header Macaroon, so send both headers; guarded by mu
}

// needsBoth reports whether a token must be sent in both headers.
func (st *originState) needsBoth() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.both
}

// sendBoth records that the gateway accepted a token only when the token was in both headers.
func (st *originState) sendBoth() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.both = true
}

// sells reports whether a challenge came for the path.
func (st *originState) sells(path string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	_, ok := st.paths[path]
	return ok
}

// maxPaths bounds originState.paths. When an origin has several services, a request to a path
// beyond the bound may get one more 402.
const maxPaths = 256

func (c *Client) origin(origin string) *originState {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, ok := c.origins[origin]
	if !ok {
		st = &originState{paths: map[string]string{}}
		c.origins[origin] = st
	}
	return st
}

// current returns the token to try first. When an origin is used for the first time, current first
// resolves the intents that an earlier process left.
func (c *Client) current(ctx context.Context, origin, path string) (Token, bool, error) {
	st := c.origin(origin)
	if err := st.open(ctx, c, origin); err != nil {
		return Token{}, false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	t, ok := pick(st.tokens, origin, st.paths[path])
	return t, ok, nil
}

func (st *originState) open(ctx context.Context, c *Client, origin string) error {
	st.opening.Lock()
	defer st.opening.Unlock()
	if st.opened {
		return nil
	}
	if err := c.settleLeftovers(ctx, origin); err != nil {
		// The next purchase resolves the payment again, and fails if the payment is still unresolved.
		c.cfg.Log.Warn("an earlier payment is unresolved", "origin", origin, "error", err)
	}
	_, err := c.reload(origin)
	st.opened = err == nil
	return err
}

// reload reads the tokens of an origin from the store again, because another process may have
// bought tokens.
func (c *Client) reload(origin string) ([]Token, error) {
	all, err := c.cfg.Store.Tokens()
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(all, func(t Token) bool { return t.Origin != origin })
	st := c.origin(origin)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.tokens = ours
	return ours, nil
}

// remember puts a token that was just stored at the front of the list.
func (st *originState) remember(t Token) {
	st.mu.Lock()
	defer st.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(st.tokens), func(o Token) bool { return o.Name() == t.Name() })
	st.tokens = append([]Token{t}, others...)
}

// paid reports whether an invoice is a deposit of a stored token, bought or imported.
func (st *originState) paid(hash l402.PaymentHash) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.ContainsFunc(st.tokens, func(t Token) bool { return t.PaymentHash == hash || t.holds(hash) })
}

// learn records which service sells a path.
func (st *originState) learn(path, service string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.paths) < maxPaths {
		st.paths[path] = service
	}
}

// intentsOf returns the open intents of one origin.
func (c *Client) intentsOf(origin string) ([]Intent, error) {
	all, err := c.cfg.Store.Intents()
	return slices.DeleteFunc(all, func(in Intent) bool { return in.Origin != origin }), err
}

// pick returns the newest token of an origin for a service. An empty service means any service.
func pick(tokens []Token, origin, service string) (Token, bool) {
	for _, t := range tokens {
		if t.Origin == origin && (service == "" || t.Service == service) {
			return t, true
		}
	}
	return Token{}, false
}
