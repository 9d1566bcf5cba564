package client

import (
	"bytes"
	"net/http"
	"strings"

	"sluice.example/sluice/l402"
)

// Charge is what a response said about its price, in msat. Nil: it did not.
type Charge struct {
	Cost    *l402.Msat `json:"cost_msat"`    // charged for this request
	Balance *l402.Msat `json:"balance_msat"` // left on the account
}

// Headers of a paid response.
const (
	HeaderCost    = "L402-Cost-Msat"
	HeaderBalance = "L402-Balance-Msat"
)

// Cost reads the charge from the headers of resp, and from its trailers once
// the body has been read to its end. A stream tells its cost in a comment as
// well: see EventReader and CostScanner.
func Cost(resp *http.Response) Charge {
	var c Charge
	for _, h := range []http.Header{resp.Header, resp.Trailer} {
		c.set(&c.Cost, h.Get(HeaderCost))
		c.set(&c.Balance, h.Get(HeaderBalance))
	}
	return c
}

// set keeps what dst was when s is no amount.
func (c *Charge) set(dst **l402.Msat, s string) {
	if m, err := l402.ParseMsat(s); err == nil {
		*dst = &m
	}
}

// Merge returns c with everything that later knows put over it.
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

// ParseCostComment reads one line of an event stream of the form
// ": l402 cost_msat=12 balance_msat=3400", with or without its line end. Other
// keys are skipped. ok is false for any other line and when neither amount can
// be read.
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

// maxComment bounds the line that a CostScanner keeps, in bytes.
const maxComment = 512

// CostScanner is an io.Writer that watches an event stream pass, in pieces of
// any size, and remembers the last cost comment. Lines end in \n, \r or \r\n.
//
//	var scan client.CostScanner
//	io.Copy(out, io.TeeReader(resp.Body, &scan))
//	charge := client.Cost(resp).Merge(scan.Charge())
type CostScanner struct {
	line   []byte
	skip   bool // the rest of this line cannot be a cost comment
	charge Charge
}

// Write never fails.
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

// keep adds to the current line for as long as it may be a comment of ours.
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

// Charge returns what the last whole comment said. A line that was cut does
// not count: its last number may be cut as well.
func (s *CostScanner) Charge() Charge { return s.charge }
