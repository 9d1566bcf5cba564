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

// Delegation says what a delegated copy of a token may do at most. A zero field adds no limit. At
// least one limit is needed, and Label is not a limit.
type Delegation struct {
	// Budget is the most, in msat, that the copy and all copies made from it may ever spend
	// together. Each call of Delegate opens a new budget, even when the limits are equal to those
	// of an earlier call.
	Budget            l402.Msat
	Models            []string  // the only models that the copy may use
	Capabilities      []string  // the only kinds of calls that the copy may make, such as "chat"
	ValidUntil        time.Time // expiry of the copy, cut to whole seconds
	RequestsPerMinute int64     // for all copies made from the result together
	Label             string    // name of the copy in balances, at most l402.MaxLabelSize bytes
}

// DelegationError reports a limit that cannot be added to the token.
type DelegationError struct {
	Limit  string // budget, models, capabilities, expires, rpm or label; "": no single limit is at fault
	Reason string // one clause that says what is wrong
}

// Error returns the limit and what is wrong with it.
func (e *DelegationError) Error() string {
	if e.Limit == "" {
		return e.Reason
	}
	return e.Limit + ": " + e.Reason
}

// Delegate makes an attenuated copy of the token, without a connection to the gateway. The copy has
// the same preimage. Nobody can remove the new caveats from the copy. The gateway counts what the
// copy spends against the account as well. Delegate only narrows: it refuses a limit that the
// gateway would refuse later. A refused limit is a *DelegationError. Any other error means that the
// token itself cannot be used any more.
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

// limit is one caveat to add. name is the limit's name in a DelegationError.
type limit struct{ name, condition string }

func (d Delegation) limits(service string) []limit {
	var all []limit
	add := func(name, caveat, value string) { all = append(all, limit{name, service + "_" + caveat + "=" + value}) }
	// The gateway names a budget or a rate limit by the macaroon's signature at its caveat. Two
	// equal delegations would therefore share one budget or one rate limit, which neither holder
	// expects. A random condition before the caveat makes the signatures differ. Gateways skip this
	// condition, because it has no service's prefix.
	unique := false
	once := func(name string) {
		if !unique {
			unique = true
			var b [8]byte
			rand.Read(b[:])
			all = append(all, limit{name, "delegation=" + hex.EncodeToString(b[:])})
		}
	}
	// The expiry caveat is added before the budget caveat, because the gateway deletes a budget
	// after the expiry that comes before the budget in the token.
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
		add("label", "label", d.Label) // the gateway gives the label to the budget before it
	}
	if len(d.Models) > 0 {
		add("models", "models", strings.Join(d.Models, ","))
	}
	if len(d.Capabilities) > 0 {
		add("capabilities", "capabilities", strings.Join(d.Capabilities, ","))
	}
	return all
}

// context returns the token's own value of this limit, as an addition to an error text. It returns
// "" when the token has none.
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

// refusal returns why the gateway would refuse a token, as one clause.
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

// errForeign reports a token that judge cannot read, such as a token of a gateway that runs other
// software.
var errForeign = errors.New("it does not have the form of this gateway's tokens")

// judge returns what the token's caveats allow, as the gateway would read them. Only the gateway
// can verify the token itself. judge therefore makes a token with the same conditions under a new
// key, and verifies that token. It fails as l402.Token.Authorize does, and with errForeign.
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
		return nil, errForeign // the token has a third-party caveat or a location, which Inspect does not return
	}
	token, err := ring.Verify(&l402.Credential{Macaroon: standIn, Preimage: t.Preimage})
	if err != nil {
		return nil, err
	}
	return token, token.Authorize("", now)
}

// minted reads from the conditions what the gateway minted, and counts those conditions. A number
// that cannot be read becomes zero, which Mint refuses.
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
