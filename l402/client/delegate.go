package client

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
)

// Delegation says what a delegated copy of a token may do at most. A zero
// field adds no limit; at least one limit is needed, and a label is none.
type Delegation struct {
	// Budget is the most, in msat, that the copy and all that is made from it
	// may ever spend. Each Delegate opens a budget of its own, also with equal
	// limits; only copies of its result share it.
	Budget            l402.Msat
	Models            []string  // the only models it may use
	Capabilities      []string  // the only kinds of calls, such as "chat"
	ValidUntil        time.Time // its end, cut to whole seconds
	RequestsPerMinute int64     // over all copies of the result
	Label             string    // its name in balances, at most l402.MaxLabelSize bytes
}

// DelegationError reports a limit that the token at hand cannot be given.
type DelegationError struct {
	Limit  string // budget, models, capabilities, expires, rpm or label; "": none of them alone
	Reason string // one clause
}

// Error names the limit and what is wrong with it.
func (e *DelegationError) Error() string {
	if e.Limit == "" {
		return e.Reason
	}
	return e.Limit + ": " + e.Reason
}

// Delegate makes an attenuated copy of the token, without asking anybody: the
// preimage is the same, and the new caveats cannot be taken off again. The
// gateway counts what the copy spends against the account as well. Delegate
// only narrows: it refuses a limit that the gateway would refuse later. A
// refused limit is a *DelegationError; any other error says that the token
// itself cannot be used any more.
func (t Token) Delegate(d Delegation, now time.Time) (Token, error) {
	held, err := t.judge(now)
	if err != nil {
		return Token{}, fmt.Errorf("%s cannot be delegated: %w", t, err)
	}
	limits := d.limits(held.Service)
	if !slices.ContainsFunc(limits, func(l limit) bool { return l.name != "label" }) {
		return Token{}, &DelegationError{Reason: "want at least one limit: a budget, models, capabilities, an expiry or a rate"}
	}
	part := t
	for _, l := range limits {
		m, err := l402.Attenuate(part.Macaroon, l.condition)
		if err != nil {
			return Token{}, &DelegationError{Limit: l.name, Reason: "the token would become too large"}
		}
		if part, err = describe(t.Origin, m); err != nil {
			return Token{}, fmt.Errorf("read the delegated token: %w", err)
		}
		part.Preimage = t.Preimage
		if _, err := part.judge(now); err != nil {
			return Token{}, &DelegationError{Limit: l.name, Reason: refusal(err) + l.context(held)}
		}
	}
	part.CreatedAt, part.UpdatedAt = now, now
	return part, nil
}

// limit is one caveat to add.
type limit struct{ name, condition string }

func (d Delegation) limits(service string) []limit {
	var all []limit
	add := func(name, caveat, value string) { all = append(all, limit{name, service + "_" + caveat + "=" + value}) }
	// A budget is named by the signature at its caveat, and a rate as well. So
	// two equal delegations would share one, to the surprise of both holders,
	// were there nothing before it that differs. Gateways skip the condition,
	// because it has no service's prefix.
	unique := false
	once := func(name string) {
		if !unique {
			unique = true
			var b [8]byte
			rand.Read(b[:])
			all = append(all, limit{name, "delegation=" + hex.EncodeToString(b[:])})
		}
	}
	// The expiry first: a budget ends, and is forgotten by the gateway, with the
	// expiry that stands before it.
	if !d.ValidUntil.IsZero() {
		add("expires", "valid_until", strconv.FormatInt(d.ValidUntil.Unix(), 10))
	}
	if d.Budget != 0 {
		once("budget")
		add("budget", "budget_msat", strconv.FormatInt(int64(d.Budget), 10))
	}
	if d.RequestsPerMinute != 0 {
		once("rpm")
		add("rpm", "rpm", strconv.FormatInt(d.RequestsPerMinute, 10))
	}
	if d.Label != "" {
		add("label", "label", d.Label) // names the budget before it
	}
	if len(d.Models) > 0 {
		add("models", "models", strings.Join(d.Models, ","))
	}
	if len(d.Capabilities) > 0 {
		add("capabilities", "capabilities", strings.Join(d.Capabilities, ","))
	}
	return all
}

// context adds to a refusal what the token has of this limit already.
func (l limit) context(held *l402.Token) string {
	switch {
	case l.name == "budget" && len(held.Budgets) > 0:
		return fmt.Sprintf(" (the token's is %s)", held.Budgets[len(held.Budgets)-1].Limit)
	case l.name == "rpm" && len(held.RateLimits) > 0:
		return fmt.Sprintf(" (the token's is %d)", held.RateLimits[len(held.RateLimits)-1].PerMinute)
	case l.name == "expires":
		return fmt.Sprintf(" (the token ends at %s)", held.ValidUntil.UTC().Format(time.RFC3339))
	}
	return ""
}

// refusal says why the gateway would not take a token.
func refusal(err error) string {
	var caveat *l402.CaveatError
	switch {
	case errors.As(err, &caveat):
		return caveat.Reason
	case errors.Is(err, l402.ErrExpired):
		return "an expiry must lie in the future"
	}
	return err.Error()
}

// errForeign reports a token that judge cannot read, such as one of another
// maker's gateway.
var errForeign = errors.New("it does not have the form of this gateway's tokens")

// judge lets the gateway's own reader say what the token's caveats amount to.
// Only the gateway can verify the token itself, so judge makes a stand-in under
// a key for this one call, with the same conditions. It fails as
// l402.Token.Authorize does, and with errForeign.
func (t Token) judge(now time.Time) (*l402.Token, error) {
	_, conditions, err := l402.Inspect(t.Macaroon)
	if err != nil {
		return nil, err
	}
	key := l402.MasterKey{ID: "stand-in", State: l402.KeyMint}
	rand.Read(key.Secret[:])
	ring, err := l402.NewKeyring(l402.LedgerID{}, []l402.MasterKey{key})
	if err != nil {
		return nil, err
	}
	params, minted := t.minted(conditions)
	standIn, err := ring.Mint(params)
	if err != nil {
		return nil, errForeign
	}
	_, same, err := l402.Inspect(standIn)
	if err != nil || minted > len(conditions) || !slices.Equal(same, conditions[:minted]) {
		return nil, errForeign
	}
	if standIn, err = l402.Attenuate(standIn, conditions[minted:]...); err != nil || len(standIn) != len(t.Macaroon) {
		return nil, errForeign // it has what Inspect does not show: a third party's caveat, a location
	}
	token, err := ring.Verify(&l402.Credential{Macaroon: standIn, Preimage: t.Preimage})
	if err != nil {
		return nil, err
	}
	return token, token.Authorize("", now)
}

// minted reads from the conditions what the token was minted with, and counts
// those conditions. A number that cannot be read is zero, which Mint refuses.
func (t Token) minted(conditions []string) (l402.MintParams, int) {
	p := l402.MintParams{Service: t.Service, PaymentHash: t.PaymentHash, TokenID: t.ID}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	until, _ := condition(conditions, t.Service+"_valid_until")
	deposit, _ := condition(conditions, t.Service+"_deposit_msat")
	p.ValidUntil, p.Deposit = time.Unix(number(until), 0), l402.Msat(number(deposit))
	count := 3
	if len(conditions) > 2 {
		if value, ok := strings.CutPrefix(conditions[2], t.Service+"_rate_lock="); ok {
			epoch, until, _ := strings.Cut(value, ":")
			p.RateLock = l402.RateLock{Epoch: number(epoch), Until: time.Unix(number(until), 0)}
			count = 4
		}
	}
	return p, count
}
