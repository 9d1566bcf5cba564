package client

import (
	"bytes"
	"net/http"
	"strings"

	"sluice.example/sluice/l402"
)

// Charge is what a response said about its price. The amounts are in msat. A nil amount means that
// the response did not say it.
type Charge struct {
	Cost    *l402.Msat `json:"cost_msat"`    // charged for this request
	Balance *l402.Msat `json:"balance_msat"` // left on the account
}

// These are the headers of a paid response.
const (
	HeaderCost    = "L402-Cost-Msat"
	HeaderBalance = "L402-Balance-Msat"
)

// Cost reads the charge from the headers of resp. After the body was read to its end, Cost also
// reads the trailers. In an event stream the gateway sends the cost in a comment as well, see
// EventReader and CostScanner.
func Cost(resp *http.Response) Charge {
	var c Charge
	for _, h := range []http.Header{resp.Header, resp.Trailer} {
		c.set(&c.Cost, h.Get(HeaderCost))
		c.set(&c.Balance, h.Get(HeaderBalance))
	}
	return c
}

// set parses s into dst. When s is not an amount, dst is not changed.
func (c *Charge) set(dst **l402.Msat, s string) {
	if m, err := l402.ParseMsat(s); err == nil {
		*dst = &m
	}
}

// Merge returns c with the amounts of later in place of its own. An amount that later does not have
// is kept from c.
func (c Charge) Merge(later Charge) Charge {
	if later.Cost != nil {
		c.Cost = later.Cost
	}
	if later.Balance != nil {
		c.Balance = later.Balance
	}
	return c
}

const commentPrefix = ": l402 "

// ParseCostComment reads one line of an event stream of the form ": l402 cost_msat=12
// balance_msat=3400", with or without its line end. It skips other keys. ok is false for any other
// line, and when neither amount can be read.
func ParseCostComment(line []byte) (c Charge, ok bool) {
	rest, found := strings.CutPrefix(strings.TrimRight(string(line), "\r\n"), commentPrefix)
	if !found {
		return c, false
	}
	for _, field := range strings.Fields(rest) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "cost_msat":
			c.set(&c.Cost, value)
		case "balance_msat":
			c.set(&c.Balance, value)
		}
	}
	return c, c.Cost != nil || c.Balance != nil
}

// maxComment is how many bytes of a line a CostScanner keeps.
const maxComment = 512

// CostScanner is an io.Writer that receives an event stream in pieces of any size and remembers the
// last cost comment. Lines end in \n, \r or \r\n.
//
//	var scan client.CostScanner
//	io.Copy(out, io.TeeReader(resp.Body, &scan))
//	charge := client.Cost(resp).Merge(scan.Charge())
type CostScanner struct {
	line   []byte
	skip   bool // the rest of this line cannot be a cost comment
	charge Charge
}

// Write never returns an error.
func (s *CostScanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			s.keep(p)
			break
		}
		s.keep(p[:end])
		s.endLine()
		p = p[end+1:]
	}
	return n, nil
}

// keep adds p to the current line as long as the line may be a cost comment.
func (s *CostScanner) keep(p []byte) {
	if s.skip {
		return
	}
	if len(s.line)+len(p) > maxComment {
		s.skip = true
		return
	}
	s.line = append(s.line, p...)
	head := min(len(s.line), len(commentPrefix))
	s.skip = string(s.line[:head]) != commentPrefix[:head]
}

func (s *CostScanner) endLine() {
	if !s.skip {
		if c, ok := ParseCostComment(s.line); ok {
			s.charge = s.charge.Merge(c)
		}
	}
	s.line, s.skip = s.line[:0], false
}

// Charge returns the charge in the last complete cost comment. A comment without its line end does
// not count, because its last number may be cut off.
func (s *CostScanner) Charge() Charge { return s.charge }
