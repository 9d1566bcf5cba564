package metering

import (
	"bytes"
	"context"
	"hash/maphash"

	"sluice.example/sluice/l402"
)

// census finds rows of charges and adjustments that have no line, and lines that have no row. It must do so while rows
// and lines are added, and lines have no index by the id that they name. It sums up the amounts of all lines, each
// multiplied by a random number that belongs to its id, and subtracts the same products for the rows: the result must
// be 0. It covers rows in ascending order of ids. After an id is covered, a line of that id no longer counts, unless
// the snapshot that covered the id contains the line. So each id is compared in one snapshot.
type census struct {
	audit *auditor
	kinds [2]headcount // of charges, of adjustments
}

// buckets is how many groups the ids are divided into. Only the ids of a group whose sum is not 0 are counted again.
const buckets = 4096

type headcount struct {
	what   string
	seed   maphash.Seed
	next   HoldID // all ids below next are covered
	done   bool   // all ids are covered
	sums   [buckets]uint64
	prints [buckets]uint64

	bad   [buckets]bool
	exact map[HoldID]l402.Msat // line amounts minus row amounts, msat, by id, in bad groups; nil during the first count
}

func bucketOf(id *HoldID) int { return int(id[14])<<4&0xff0 | int(id[15])>>4 }

func (h *headcount) covered(id *HoldID) bool { return h.done || bytes.Compare(id[:], h.next[:]) < 0 }

func (h *headcount) add(id HoldID, amount l402.Msat) {
	b := bucketOf(&id)
	if h.exact != nil {
		if h.bad[b] {
			if h.exact[id] += amount; h.exact[id] == 0 {
				delete(h.exact, id)
			}
		}
		return
	}
	h.sums[b] += uint64(amount)
	h.prints[b] += uint64(amount) * (maphash.Bytes(h.seed, id[:]) | 1)
}

// begin makes the census, and the recount r, see each slice that an auditor reads.
func (c *census) begin(a *auditor, r *recount) {
	c.audit = a
	for i, what := range []string{"charge", "adjustment"} {
		c.kinds[i].what, c.kinds[i].seed = what, maphash.MakeSeed()
	}
	a.watch = func(set *lineSet) {
		c.lines(set, nil)
		r.lines(set)
	}
}

// lines counts the lines whose ids are not covered yet. If only is not nil, lines counts just those of them for which
// only returns true.
func (c *census) lines(set *lineSet, only func(h *headcount, id *HoldID) bool) {
	for i := range set.transfers {
		t := &set.transfers[i].row
		_, _, amount, ok := t.sides()
		var h *headcount
		switch t.Kind {
		case TransferCharge, TransferReversal:
			h = &c.kinds[0]
		case TransferAdjustment:
			h = &c.kinds[1]
		}
		if h == nil || !ok {
			continue
		}
		if id := holdRef(t.Ref); !h.covered(&id) && (only == nil || only(h, &id)) {
			h.add(id, amount)
		}
	}
}

// walk covers all rows, and reports the ids whose lines and rows differ.
func (c *census) walk(ctx context.Context) error {
	if err := c.cover(ctx, true); err != nil {
		return err
	}
	wrong := false
	for i := range c.kinds {
		h := &c.kinds[i]
		for b := range h.bad {
			h.bad[b] = h.sums[b] != 0 || h.prints[b] != 0
			wrong = wrong || h.bad[b]
		}
	}
	if !wrong {
		return nil
	}
	return c.name(ctx)
}

// name counts the ids of the bad buckets once more, one by one, and reports those whose lines and rows differ.
func (c *census) name(ctx context.Context) error {
	a := c.audit
	for i := range c.kinds {
		h := &c.kinds[i]
		h.next, h.done, h.exact = HoldID{}, false, make(map[HoldID]l402.Msat)
	}
	again := newAuditor(a.store)
	again.pause, again.wanted = a.pause, func(*Subject) bool { return false }
	again.watch = func(set *lineSet) { c.lines(set, nil) }
	c.audit = again
	if err := again.catchUp(ctx); err != nil {
		return err
	}
	if err := c.cover(ctx, false); err != nil {
		return err
	}
	for i := range c.kinds {
		h := &c.kinds[i]
		for id, left := range h.exact {
			a.mismatch(Subject{}, "%s %s: its lines are %d msat more than its row", h.what, id, left)
		}
	}
	return nil
}

func (c *census) cover(ctx context.Context, first bool) error {
	for i := range c.kinds {
		h := &c.kinds[i]
		for !h.done {
			var upto HoldID
			var all bool
			err := c.audit.look(ctx, func(v *view) (err error) {
				upto, all, err = c.count(v, h, first)
				return err
			})
			if err != nil {
				return err
			}
			h.next = upto
			h.done = increment(h.next[:]) || all
		}
	}
	return nil
}

// count subtracts the next rows, and adds the newest lines of the same ids. all is true when there are no more rows
// after upto.
func (c *census) count(v *view, h *headcount, first bool) (upto HoldID, all bool, err error) {
	n := v.rowsAtOnce()
	rows, owners := 0, []l402.TokenID(nil)
	if h == &c.kinds[0] {
		err = v.s.Charges(h.next, n, func(r ChargeRow) {
			rows, upto = rows+1, r.Hold
			h.add(r.Hold, -r.Charged)
			if first {
				v.sums.unbilled.add(r.Unbilled)
			}
			if first && r.Charged == 0 { // charges of more than 0 msat have lines, and are compared with them
				owners = append(owners, r.Account)
				if wrong := r.inexact(); wrong != "" {
					v.mismatch(accountSubject(r.Account), "account %s: charge %s: %s", r.Account, r.Hold, wrong)
				}
			}
		})
	} else {
		err = v.s.Adjustments(h.next, n, func(r AdjustmentRow) {
			rows, upto = rows+1, r.ID
			h.add(r.ID, -r.Delta)
		})
	}
	if err != nil {
		return upto, false, err
	}
	all = rows < n
	c.lines(v.lines, func(of *headcount, id *HoldID) bool {
		return of == h && (all || bytes.Compare(id[:], upto[:]) <= 0)
	})
	return upto, all, v.checkOwners(h.what, owners)
}
