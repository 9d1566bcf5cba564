package openai

import (
	"fmt"
	"math/bits"

	"sluice.example/sluice/metering/format"
)

// tally is what the results of one list say together.
type tally struct {
	results int64
	tokens  int64 // read for them, as they say of themselves
	weight  int64 // tokens that their texts usually have
}

// fuller is the tally of the list that says more. Engines may say the same in two lists,
// and a client reads one of them.
func fuller(a, b tally) tally {
	if b.results > a.results || b.results == a.results && b.tokens > a.tokens {
		return b
	}
	return a
}

// tallies counts the results of an answer list by list.
type tallies struct {
	list string   // the member that the results stand in which come now
	seen []uint64 // the texts that this list has results of; made at the first index
	now  tally    // of this list
	best tally    // the fullest list before this one
}

// fullest is the list that says the most.
func (t *tallies) fullest() tally { return fuller(t.best, t.now) }

// turnTo notes the list that the next result stands in.
func (t *tallies) turnTo(list string) {
	if list != t.list {
		t.list, t.best, t.now = list, t.fullest(), tally{}
		clear(t.seen)
	}
}

// see notes the result of a text of n. It fails where there is no such text, and where
// the list has a result of it already.
func (t *tallies) see(index, n int64) error {
	if index < 0 || index >= n {
		return fmt.Errorf("%w: a result is of text %d, and there are %d", ErrNotComputed, index, n)
	}
	if t.seen == nil {
		t.seen = make([]uint64, (n+63)/64)
	}
	if t.seen[index/64]>>(index%64)&1 != 0 {
		return fmt.Errorf("%w: two results are of text %d", ErrNotComputed, index)
	}
	t.seen[index/64] |= 1 << (index % 64)
	return nil
}

// take notes one element of a list of results. A result that names no text is of the one
// in its place.
func (m *inputMeter) take(list string, v []byte) error {
	if list == "" && !m.results.bare {
		return ErrNotComputed
	}
	v, err := checkValue(v)
	if err != nil {
		return err
	}
	e := m.results.read(list, v)
	if !e.computed {
		return fmt.Errorf("%w: a result has no numbers", ErrNotComputed)
	}
	m.got.turnTo(list)
	now := &m.got.now
	if e.index == noIndex {
		e.index = now.results
	} else if err := m.got.see(e.index, m.request.count()); err != nil {
		return err
	}
	now.results++
	now.tokens = format.AddSat(now.tokens, max(0, e.tokens))
	now.weight = format.AddSat(now.weight, m.request.weight(e.index, m.bound.Each))
	return nil
}

// count is how many texts and lists of token ids there are.
func (r *inputs) count() int64 { return int64(len(r.texts) + len(r.ids)) }

// weight is how many tokens a text usually has, where a model reads at most so many of
// one; 0: there is no such text.
func (r *inputs) weight(index, most int64) (tokens int64) {
	switch {
	case index < int64(len(r.texts)):
		tokens = r.texts[index].bytes/format.DefaultBytesPerToken + r.api.likely
	case len(r.texts) == 0 && index < int64(len(r.ids)):
		tokens = r.ids[index]
	}
	if most > 0 {
		tokens = min(tokens, most)
	}
	return tokens
}

// isOfResults reports whether the usage is that of the texts which have results, where
// some have none: it is closer to what those take as a rule than to what all take, of
// which weight is the sum.
func (m *inputMeter) isOfResults(weight int64) bool {
	got := m.got.fullest()
	if got.results >= m.request.count() || len(m.request.texts) == 0 || weight <= 0 {
		return false
	}
	said, all := float64(m.read.prompt), float64(m.likely())
	return said > 0 && said*said < all*all*float64(got.weight)/float64(weight)
}

// share is the part of n that belongs to the results that were delivered: by the length
// of their texts, or by their number where fewer were asked for than there are texts. A
// usage of the texts that have results alone is shared among these.
func (m *inputMeter) share(n int64) int64 {
	part, all := m.delivered.results, m.results.want
	if texts := m.request.count(); all >= texts {
		part, all = m.delivered.weight, 0
		for i := range texts {
			all = format.AddSat(all, m.request.weight(i, m.bound.Each))
		}
		if m.isOfResults(all) {
			all = m.got.fullest().weight
		}
	}
	if part >= all || n <= 0 {
		return n
	}
	high, low := bits.Mul64(uint64(n), uint64(part))
	quotient, _ := bits.Div64(high, low, uint64(all))
	return int64(quotient)
}
