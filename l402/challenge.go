package l402

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// These are the bounds on a challenge in bytes. BOLT 11 invoices of real wallets have at most 7089
// characters, because more do not fit into a QR code.
const (
	maxChallengeSize = 128 << 10
	maxInvoiceSize   = 8 << 10
)

// Challenge is what a 402 response asks the client to pay. Neither field is verified: before it
// pays, the client must compare the payment hash in the macaroon (see Inspect) with the payment
// hash of the invoice.
type Challenge struct {
	Macaroon []byte
	Invoice  string // BOLT 11
}

// FormatChallenge returns the value of the WWW-Authenticate header. Deployed clients use a regular
// expression that expects macaroon and invoice right after the scheme. The current specification
// requires the parameters version and token. This order of parameters serves both.
func FormatChallenge(macaroon []byte, invoice string) string {
	m := base64.StdEncoding.EncodeToString(macaroon)
	return `L402 macaroon="` + m + `", invoice="` + invoice + `", version="0", token="` + m + `"`
}

// ParseChallenge returns the first usable L402 (or LSAT) challenge among the values of a response's
// WWW-Authenticate headers. It accepts what real servers send: challenges of other schemes,
// parameters in any order, values without quotes, token instead of macaroon, and unknown
// parameters. It fails with ErrNoChallenge when there is no L402 challenge, and with
// ErrMalformedChallenge when there are L402 challenges but none of them can be read.
func ParseChallenge(values []string) (*Challenge, error) {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	if size > maxChallengeSize {
		return nil, fmt.Errorf("%w: WWW-Authenticate is larger than %d bytes", ErrMalformedChallenge, maxChallengeSize)
	}
	err := ErrNoChallenge
	for _, v := range values {
		s := challengeScanner{rest: v}
		for s.next() {
			if !strings.EqualFold(s.scheme, "L402") && !strings.EqualFold(s.scheme, "LSAT") {
				continue
			}
			c, reason := s.challenge()
			if reason == "" {
				return c, nil
			}
			err = fmt.Errorf("%w: %s", ErrMalformedChallenge, reason)
		}
	}
	return nil, err
}

// challengeScanner reads the challenges of one header value in turn (RFC 9110, section 11.6.1). It
// accepts wrong syntax where the meaning is clear.
type challengeScanner struct {
	rest   string
	scheme string
	params []param
	bad    bool // a quoted string of this challenge has no closing quote
}

type param struct{ name, value string }

// next reads the next scheme and its parameters. It reports whether there was a scheme.
func (s *challengeScanner) next() bool {
	s.scheme, s.params, s.bad = "", nil, false
	for {
		s.rest = strings.TrimLeft(s.rest, " \t,")
		if s.rest == "" {
			return s.scheme != ""
		}
		name := s.rest[:tokenLength(s.rest)]
		if name == "" {
			s.skip() // a token68 value or stray characters
			continue
		}
		after := strings.TrimLeft(s.rest[len(name):], " \t")
		switch value, isParam := strings.CutPrefix(after, "="); {
		case isParam:
			s.rest = strings.TrimLeft(value, " \t")
			p := param{name, s.value()}
			if s.scheme != "" {
				s.params = append(s.params, p)
			}
		case s.scheme != "":
			return true // the next challenge begins here
		default:
			s.scheme = name
			s.rest = after
		}
	}
}

// skip drops everything before the next comma, space or tab.
func (s *challengeScanner) skip() {
	if i := strings.IndexAny(s.rest, " \t,"); i >= 0 {
		s.rest = s.rest[i:]
		return
	}
	s.rest = ""
}

// value reads a parameter's value, with or without quotes. A value without quotes may contain '/',
// '+' and '=', because base64 does.
func (s *challengeScanner) value() string {
	if !strings.HasPrefix(s.rest, `"`) {
		before := s.rest
		s.skip()
		return before[:len(before)-len(s.rest)]
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	s.rest, s.bad = "", true
	return ""
}

// challenge builds a Challenge from the parameters that next read. When it cannot, reason says why.
func (s *challengeScanner) challenge() (c *Challenge, reason string) {
	if s.bad {
		return nil, "a quoted string does not end"
	}
	var macaroon, token, invoice string
	for _, p := range s.params {
		var field *string
		switch strings.ToLower(p.name) {
		case "macaroon":
			field = &macaroon
		case "token":
			field = &token
		case "invoice":
			field = &invoice
		default:
			continue
		}
		if *field != "" && *field != p.value {
			return nil, "two different values of " + strings.ToLower(p.name)
		}
		*field = p.value
	}
	if macaroon == "" {
		macaroon = token
	}
	if macaroon == "" || invoice == "" {
		return nil, "macaroon or invoice is missing"
	}
	if len(invoice) > maxInvoiceSize || strings.ContainsFunc(invoice, notAlphanumeric) {
		return nil, "invoice is not bech32 text"
	}
	b, err := decodeBase64(macaroon)
	if err != nil || len(b) > MaxMacaroonSize {
		return nil, "macaroon is not base64"
	}
	return &Challenge{Macaroon: b, Invoice: invoice}, ""
}

// tokenLength returns how many leading bytes of s belong to a token (RFC 9110,
// section 5.6.2).
func tokenLength(s string) int {
	for i := range len(s) {
		if c := rune(s[i]); notAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", c) {
			return i
		}
	}
	return len(s)
}

func notAlphanumeric(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9')
}
