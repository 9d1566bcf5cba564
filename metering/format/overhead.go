package format

import (
	"sync"
	"time"
)

const (
	// maxOverhead bounds what is learnt of a template, in tokens.
	maxOverhead = 8192
	// overheadFor is how long an answer counts: the backend's template may change.
	overheadFor = 24 * time.Hour
	// maxClaims bounds the accounts whose answers are remembered.
	maxClaims = 64
)

// Overhead learns how many tokens the template of a backend adds to a prompt beyond
// what its limits say, from answers whose reported prompt was longer than its
// bound. One account's answers raise the bounds of that account only; a second
// account has to meet the same before others' bounds follow, and never beyond 8192
// tokens. It is safe for concurrent use; the zero value has learnt nothing.
type Overhead struct {
	mu     sync.Mutex
	claims []claim // at most one of each account
	next   int     // the one to replace when all are taken
}

// claim is the most that one account's prompts were beyond the model's limits.
type claim struct {
	voter  uint64
	tokens int64
	at     time.Time
}

// Learn takes from an answer of the account voter that its prompt was tokens longer
// than the limits say.
func (o *Overhead) Learn(voter uint64, tokens int64, now time.Time) {
	tokens = min(tokens, maxOverhead)
	if tokens <= 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.claims {
		v := &o.claims[i]
		if v.voter != voter {
			continue
		}
		if tokens >= v.tokens || now.Sub(v.at) >= overheadFor {
			*v = claim{voter, tokens, now}
		}
		return
	}
	if len(o.claims) < maxClaims {
		o.claims = append(o.claims, claim{voter, tokens, now})
		return
	}
	o.claims[o.next] = claim{voter, tokens, now}
	o.next = (o.next + 1) % maxClaims
}

// For is how many tokens to add to the bound of a prompt of the account voter: what
// its own prompts took, or what those of at least two accounts did.
func (o *Overhead) For(voter uint64, now time.Time) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var own, first, second int64
	for i := range o.claims {
		v := &o.claims[i]
		switch {
		case now.Sub(v.at) >= overheadFor:
			continue
		case v.voter == voter:
			own = v.tokens
		}
		if v.tokens > first {
			first, second = v.tokens, first
		} else if v.tokens > second {
			second = v.tokens
		}
	}
	return max(own, second)
}
