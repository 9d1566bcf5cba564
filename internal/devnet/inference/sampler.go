package inference

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// sampling says how a request wants its tokens to be chosen.
type sampling struct {
	Temperature float64 // 0: always the likeliest token
	TopP        float64 // share of the probability that is kept, 0 < TopP <= 1
	Seed        uint64
	IgnoreEOS   bool
	MinTokens   int
}

// openingChoices is the number of matching beginnings from which an answer with a temperature above
// 0 chooses.
const openingChoices = 4

// sampler generates the tokens of one sequence. Only one goroutine uses it.
type sampler struct {
	m       *model
	how     sampling
	rng     *rand.Rand
	history [order]tokenID
	forced  opening             // given before any token is drawn
	seen    map[uint64]struct{} // history and token already given; not given again while there is another choice
	given   int                 // number of tokens so far
	logProb float64             // sum over the tokens drawn so far
}

// newSampler begins the index-th sequence of an answer with one of openings. At temperature 0 it
// takes the first opening.
func (m *model) newSampler(how sampling, openings []opening, index int) *sampler {
	s := &sampler{m: m, how: how, rng: rand.New(rand.NewPCG(how.Seed, uint64(index))),
		history: emptyHistory(), seen: make(map[uint64]struct{})}
	if len(openings) > 0 {
		at := 0
		if how.Temperature > 0 {
			at = s.rng.IntN(len(openings))
		}
		s.forced = openings[at]
	}
	return s
}

// next returns the next token. end is true when the answer has ended and there is no token.
func (s *sampler) next() (id int, end bool) {
	mayEnd := !s.how.IgnoreEOS && s.given >= s.how.MinTokens
	chosen, ok := s.choose(mayEnd)
	if !ok {
		// Only the end of the text can follow this history, and the answer must not end yet.
		clear(s.seen)
		s.forced = s.m.paragraphBreak()
		chosen, _ = s.choose(mayEnd)
	}
	if chosen == endOfText {
		return 0, true
	}
	s.given++
	return int(chosen), false
}

// choose picks a token for the current history. ok is false when no token can follow.
func (s *sampler) choose(mayEnd bool) (id tokenID, ok bool) {
	if tokens := s.forced.tokens; len(tokens) > 0 {
		s.forced.tokens = tokens[1:]
		s.history = s.forced.then
		return tokens[0], true
	}
	c := s.m.scratch.Get().(*candidates)
	defer func() {
		c.reset()
		s.m.scratch.Put(c)
	}()
	s.m.predict(c, s.history)
	left := c.ids
	if !mayEnd {
		left = slices.DeleteFunc(slices.Clone(left), func(x tokenID) bool { return x == endOfText })
	}
	if len(left) == 0 {
		return 0, false
	}
	id = s.draw(c, left)
	for len(left) > 1 && s.repeats(id) {
		left = slices.DeleteFunc(slices.Clone(left), func(x tokenID) bool { return x == id })
		id = s.draw(c, left)
	}
	s.seen[s.repeatKey(id)] = struct{}{}
	s.logProb += math.Log(c.of(id))
	s.history = shift(s.history, id)
	return id, true
}

func (s *sampler) repeatKey(id tokenID) uint64 {
	return contextKey(s.history, order)<<16 ^ uint64(id)
}

func (s *sampler) repeats(id tokenID) bool {
	_, ok := s.seen[s.repeatKey(id)]
	return ok
}

// draw picks one of ids by their probability, the temperature and top_p.
func (s *sampler) draw(c *candidates, ids []tokenID) tokenID {
	best := ids[0]
	for _, id := range ids[1:] {
		if p, q := c.of(id), c.of(best); p > q || p == q && id < best {
			best = id
		}
	}
	if s.how.Temperature == 0 || len(ids) == 1 {
		return best
	}
	c.choices = c.choices[:0]
	sum := 0.0
	for _, id := range ids {
		w := c.of(id) / c.of(best) // the likeliest token has weight 1 at any temperature
		if s.how.Temperature != 1 {
			w = math.Pow(w, 1/s.how.Temperature)
		}
		c.choices = append(c.choices, choice{id, w})
		sum += w
	}
	choices := c.choices
	if s.how.TopP < 1 {
		choices, sum = nucleus(choices, s.how.TopP*sum)
	}
	at := s.rng.Float64() * sum
	for _, x := range choices {
		if at -= x.weight; at < 0 {
			return x.id
		}
	}
	return best
}

// nucleus returns the smallest set of the heaviest choices whose weight is at least wanted, and the
// weight of that set.
func nucleus(choices []choice, wanted float64) ([]choice, float64) {
	slices.SortFunc(choices, func(a, b choice) int {
		if c := cmp.Compare(b.weight, a.weight); c != 0 {
			return c
		}
		return cmp.Compare(a.id, b.id)
	})
	sum := 0.0
	for i, x := range choices {
		if sum += x.weight; sum >= wanted {
			return choices[:i+1], sum
		}
	}
	return choices, sum
}
