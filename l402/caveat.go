package l402

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// These limits bound what a holder may add to a token. MaxLabelSize and MaxRequestsPerMinute are
// choices of this package. The other limits are part of the protocol.
const (
	MaxAddedCaveats      = 16            // per token, without the preimage= caveats
	MaxBudgets           = 4             // per token, counted within MaxAddedCaveats
	maxTokenSize         = 8 << 10       // bytes of the whole binary macaroon
	MaxLabelSize         = 256           // bytes
	MaxRequestsPerMinute = 1_000_000_000 // a larger value is taken for a mistake
	maxServiceSize       = 64            // bytes of a service's name
)

// ValidateService fails when name cannot name a service. A valid name has 1 to 64 lower-case
// letters, digits and '-', and begins with a letter. A name has no '_', so that the caveats of a
// service "a" ("a_…") cannot be mistaken for the caveats of a service "a_b" ("a_b_…").
func ValidateService(name string) error {
	ok := name != "" && len(name) <= maxServiceSize && name[0] >= 'a' && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("service name %q: want 1 to %d lower-case letters, digits and '-', beginning with a letter", clip(name), maxServiceSize)
	}
	return nil
}

// reader reads the caveats of one verified macaroon into its token. A reader is used once.
type reader struct {
	token      *Token
	preimage   Preimage
	signatures [][32]byte // signatures[i] is the signature after caveat i, see maxSignatures
	prefix     string     // "<service>_"

	added    int
	unnamed  string // a label without a budget yet: the next budget gets it
	maxSpend Msat   // limit of the innermost budget
	maxRate  int64  // requests per minute of the innermost rate limit, 0: no rate limit yet
}

// read reads all caveats into the token. It returns why no request at all is allowed, by the first
// caveat that says so; nil means that no caveat does. size is the length of the whole macaroon in
// bytes.
func (r *reader) read(caveats []rawCaveat, size int) *CaveatError {
	n, err := r.minted(caveats)
	if err != nil {
		return err
	}
	for _, c := range caveats[n:] {
		if c.verification != nil || !bytes.HasPrefix(c.id, []byte(preimagePrefix)) {
			r.token.Attenuated = true
		}
	}
	if size > maxTokenSize {
		return refuse("size", "the macaroon has %d bytes: at most %d are allowed", size, maxTokenSize)
	}
	for i, c := range caveats[n:] {
		if c.verification != nil {
			return refuse("third party", "caveats of third parties are not supported here")
		}
		condition := string(c.id)
		if value, ok := strings.CutPrefix(condition, preimagePrefix); ok {
			if p, err := ParsePreimage(value); err != nil || p != r.preimage {
				return refuse("preimage", "the caveat's preimage is not the credential's") // the value is secret
			}
			continue
		}
		if r.added++; r.added > MaxAddedCaveats {
			return refuse(condition, "more than %d added caveats", MaxAddedCaveats)
		}
		if err := r.holder(condition, n+i); err != nil {
			return err
		}
	}
	return nil
}

// minted reads the caveats that the gateway put into the token, up to the deposit caveat, and
// returns how many they are. Every macaroon that Mint made begins with these caveats. A macaroon
// without them was not made by Mint, although it is signed with a key of this ledger.
func (r *reader) minted(caveats []rawCaveat) (int, *CaveatError) {
	n := 0
	// next returns the value of the next caveat and moves on, if that caveat has the given name.
	next := func(name string) (string, bool) {
		if n == len(caveats) || caveats[n].verification != nil {
			return "", false
		}
		value, ok := strings.CutPrefix(string(caveats[n].id), name+"=")
		if ok {
			n++
		}
		return value, ok
	}
	services, _ := next("services")
	name, ok := strings.CutSuffix(services, ":0")
	if !ok || ValidateService(name) != nil {
		return 0, refuse("services", "the token does not begin with the service it was issued for")
	}
	r.token.Service, r.prefix = name, name+"_"
	value, _ := next(r.prefix + "valid_until")
	until, ok := parseDecimal(value, maxUnixTime)
	if !ok {
		return 0, refuse(r.prefix+"valid_until", "the token was issued without an expiry")
	}
	r.token.ValidUntil = time.Unix(until, 0)
	if value, ok := next(r.prefix + "rate_lock"); ok {
		if r.token.RateLock, ok = parseRateLock(value); !ok {
			return 0, refuse(r.prefix+"rate_lock", "want <epoch>:<unix seconds>")
		}
	}
	value, _ = next(r.prefix + "deposit_msat")
	deposit, err := ParseMsat(value)
	if err != nil {
		return 0, refuse(r.prefix+"deposit_msat", "the token was issued without a deposit")
	}
	r.token.Deposit = deposit
	return n, nil
}

// holder reads one condition that a holder added, which may only narrow the token. at is the index
// of the condition among all caveats of the macaroon.
func (r *reader) holder(condition string, at int) *CaveatError {
	name, value, valued := strings.Cut(condition, "=")
	if name == "services" {
		if value != r.token.Service+":0" {
			return refuse(condition, "a token cannot be given another service")
		}
		return nil
	}
	name, ours := strings.CutPrefix(name, r.prefix)
	if !ours {
		return r.foreign(condition)
	}
	if !valued {
		return refuse(condition, "a condition needs a value: want name=value")
	}
	switch name {
	case "valid_until":
		return r.validUntil(condition, value)
	case "budget_msat":
		return r.budget(condition, value, at)
	case "models":
		return narrow(&r.token.models, condition, value)
	case "capabilities":
		return narrow(&r.token.capabilities, condition, value)
	case "rpm":
		return r.rpm(condition, value, at)
	case "label":
		return r.label(condition, value)
	case "deposit_msat", "rate_lock":
		return refuse(condition, "only the gateway may set this: a holder may only narrow")
	}
	return refuse(condition, "condition is not known: a misspelt limit would be no limit")
}

// foreign skips a condition that is meant for another service. It refuses a condition that differs
// from this service's prefix only by upper case or by spaces around it, because its author meant
// this service.
func (r *reader) foreign(condition string) *CaveatError {
	trimmed := strings.TrimSpace(condition)
	if len(trimmed) >= len(r.prefix) && strings.EqualFold(trimmed[:len(r.prefix)], r.prefix) {
		return refuse(condition, "condition is not known: want %q in front, in lower case and without spaces", r.prefix)
	}
	return nil
}

func (r *reader) validUntil(condition, value string) *CaveatError {
	until, ok := parseDecimal(value, maxUnixTime)
	if !ok {
		return refuse(condition, "want a time in unix seconds")
	}
	if until > r.token.ValidUntil.Unix() {
		return refuse(condition, "an expiry can only become earlier")
	}
	r.token.ValidUntil = time.Unix(until, 0)
	return nil
}

func (r *reader) budget(condition, value string, at int) *CaveatError {
	t := r.token
	limit, err := ParseMsat(value)
	switch {
	case err != nil:
		return refuse(condition, "want a whole number of msat")
	case len(t.Budgets) == MaxBudgets:
		return refuse(condition, "more than %d budgets", MaxBudgets)
	case len(t.Budgets) > 0 && limit > r.maxSpend:
		return refuse(condition, "a budget can only become smaller")
	}
	r.maxSpend = limit
	id := nameAt(r.signatures[at])
	t.Budgets = append(t.Budgets, Budget{ID: id, Limit: limit, Label: r.unnamed, ValidUntil: t.ValidUntil.Unix()})
	t.Chain, r.unnamed = id, ""
	return nil
}

func (r *reader) rpm(condition, value string, at int) *CaveatError {
	n, ok := parseDecimal(value, MaxRequestsPerMinute)
	switch {
	case !ok || n == 0:
		return refuse(condition, "want a number of requests per minute between 1 and %d", MaxRequestsPerMinute)
	case r.maxRate > 0 && n > r.maxRate:
		return refuse(condition, "a rate limit can only become smaller")
	}
	r.maxRate = n
	r.token.RateLimits = append(r.token.RateLimits, RateLimit{ID: nameAt(r.signatures[at]), PerMinute: n})
	return nil
}

// label gives a name to a budget. This is the budget before the label caveat. When there is no
// budget before the caveat, or that budget has a name already, the name is kept for the next
// budget.
func (r *reader) label(condition, value string) *CaveatError {
	if len(value) > MaxLabelSize {
		return refuse(condition, "a label has at most %d bytes", MaxLabelSize)
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return refuse(condition, "a label is printable text")
	}
	budgets := r.token.Budgets
	if n := len(budgets); n > 0 && budgets[n-1].Label == "" {
		budgets[n-1].Label = value
	} else {
		r.unnamed = value
	}
	r.token.Label = value
	return nil
}

// narrow sets the list of allowed names to the names in value. Each of them must be in the old
// list, if there is one.
func narrow(l *nameLimit, condition, value string) *CaveatError {
	var names []string
	if value != "" {
		names = strings.Split(value, ",")
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }) {
			return refuse(condition, "want names with a comma and no space between them")
		}
		if _, ok := slices.BinarySearch(l.names, name); l.set && !ok {
			return refuse(condition, "a list can only become shorter: %q was not in it", clip(name))
		}
	}
	*l = nameLimit{set: true, condition: condition, names: names}
	return nil
}

// parseRateLock reads "<epoch>:<unix seconds>". Both numbers must be at least 1.
func parseRateLock(value string) (RateLock, bool) {
	epoch, until, _ := strings.Cut(value, ":")
	e, okEpoch := parseDecimal(epoch, 1<<62)
	u, okUntil := parseDecimal(until, maxUnixTime)
	if !okEpoch || !okUntil || e == 0 || u == 0 {
		return RateLock{}, false
	}
	return RateLock{Epoch: e, Until: time.Unix(u, 0)}, true
}
