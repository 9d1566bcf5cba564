package inference

import (
	"math"
	"sort"
	"strings"
	"sync"
)

const (
	order         = 3    // number of previous tokens that a prediction uses
	maxQuestion   = 4096 // bytes at the end of a question that choose the opening
	maxCandidates = 48   // continuations kept per context, likeliest first
)

type tokenID uint16

// startOfText and endOfText mark the beginning and the end of a paragraph of the corpus. They are
// not in any vocabulary. They are never delivered and never counted.
const (
	startOfText tokenID = math.MaxUint16
	endOfText   tokenID = math.MaxUint16 - 1
)

// model is an n-gram language model over tokens. It counts what followed one, two and three tokens
// in the corpus. The counts are interpolated after Witten and Bell, which gives less weight to a
// context with many different continuations.
type model struct {
	tok       *Tokenizer
	next      map[uint64]*followers
	sentences []sentence
	words     map[string]int // number of sentences that contain the word
	scratch   sync.Pool      // *candidates
}

// followers are the continuations of one context, likeliest first.
type followers struct {
	ids      []tokenID
	counts   []float64
	total    float64 // sum of counts
	distinct float64
}

// sentence is one possible beginning of an answer.
type sentence struct {
	opening opening
	words   map[string]bool
}

// opening is a beginning that an answer takes unchanged, and the history with which the model
// continues after it. The history is that of the same words inside a text.
type opening struct {
	tokens []tokenID
	then   [order]tokenID
}

func emptyHistory() [order]tokenID { return [order]tokenID{startOfText, startOfText, startOfText} }

func (m *model) opening(text string, then [order]tokenID) opening {
	o := opening{then: then}
	for _, id := range m.tok.Encode(text) {
		o.tokens = append(o.tokens, tokenID(id))
	}
	return o
}

func (m *model) paragraphBreak() opening { return m.opening("\n\n", emptyHistory()) }

// fit builds the model from a text of paragraphs that are separated by blank lines.
func fit(text string) *model {
	tok := fitTokenizer(text)
	m := &model{tok: tok, next: make(map[uint64]*followers), words: make(map[string]int)}
	m.scratch.New = func() any { return &candidates{p: make([]float64, len(tok.pieces))} }
	counts := make(map[uint64]map[tokenID]int)
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		m.count(counts, paragraph)
		m.index(paragraph)
	}
	for key, c := range counts {
		m.next[key] = rank(c)
	}
	return m
}

func (m *model) count(counts map[uint64]map[tokenID]int, paragraph string) {
	history := emptyHistory()
	see := func(id tokenID) {
		for n := 1; n <= order; n++ {
			key := contextKey(history, n)
			if counts[key] == nil {
				counts[key] = make(map[tokenID]int)
			}
			counts[key][id]++
		}
		history = shift(history, id)
	}
	for _, id := range m.tok.Encode(paragraph) {
		see(tokenID(id))
	}
	see(endOfText)
}

// index stores the beginning and the words of each sentence of the paragraph, so that an answer can
// begin with words that are related to its question.
func (m *model) index(paragraph string) {
	for text := range strings.SplitSeq(paragraph, ". ") {
		first := strings.Join(strings.Fields(text)[:2], " ")
		var then [order]tokenID
		inside := m.tok.Encode(". " + first)
		for i, id := range inside[len(inside)-order:] {
			then[i] = tokenID(id)
		}
		s := sentence{opening: m.opening(first, then), words: wordSet(text)}
		for w := range s.words {
			m.words[w]++
		}
		m.sentences = append(m.sentences, s)
	}
}

func wordSet(text string) map[string]bool {
	words := make(map[string]bool)
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
		words[w] = true
	}
	return words
}

func rank(c map[tokenID]int) *followers {
	f := &followers{distinct: float64(len(c))}
	for id := range c {
		f.ids = append(f.ids, id)
	}
	sort.Slice(f.ids, func(i, j int) bool {
		if a, b := c[f.ids[i]], c[f.ids[j]]; a != b {
			return a > b
		}
		return f.ids[i] < f.ids[j]
	})
	f.ids = f.ids[:min(len(f.ids), maxCandidates)]
	for _, id := range f.ids {
		f.counts = append(f.counts, float64(c[id]))
		f.total += float64(c[id])
	}
	return f
}

// contextKey returns the key of the last n tokens of the history.
func contextKey(history [order]tokenID, n int) uint64 {
	key := uint64(n)
	for _, id := range history[order-n:] {
		key = key<<16 | uint64(id)
	}
	return key
}

func shift(history [order]tokenID, id tokenID) [order]tokenID {
	copy(history[:], history[1:])
	history[order-1] = id
	return history
}

// openings returns the beginnings of the sentences that share the rarest words with the question.
// It returns at most n of them, best first.
func (m *model) openings(question string, n int) []opening {
	type match struct {
		at    int
		score float64
	}
	asked := wordSet(question[max(0, len(question)-maxQuestion):])
	var matches []match
	for i, s := range m.sentences {
		score := 0.0
		for w := range asked {
			if s.words[w] {
				// The score is rounded to a whole number, because the sum must not depend on the
				// map's order.
				score += math.Round(1e6 * math.Log(float64(len(m.sentences))/float64(m.words[w])))
			}
		}
		if score > 0 {
			matches = append(matches, match{i, score})
		}
	}
	sort.SliceStable(matches, func(i, j int) bool { return matches[i].score > matches[j].score })
	var out []opening
	for _, hit := range matches[:min(n, len(matches))] {
		out = append(out, m.sentences[hit.at].opening)
	}
	return out
}

// candidates is the probability distribution of the next token.
type candidates struct {
	p   []float64 // by id; without endOfText
	ids []tokenID // ids with p > 0, in a fixed order
	end float64   // probability of endOfText

	choices []choice // scratch memory for one draw
}

// predict fills c with the tokens that may follow the history. c is empty only when the corpus does
// not contain the history.
func (m *model) predict(c *candidates, history [order]tokenID) {
	left := 1.0
	for n := order; n >= 1; n-- {
		f := m.next[contextKey(history, n)]
		if f == nil {
			continue
		}
		share := left
		if n > 1 {
			share *= f.total / (f.total + f.distinct)
		}
		left -= share
		for i, id := range f.ids {
			c.add(id, share*f.counts[i]/f.total)
		}
	}
}

type choice struct {
	id     tokenID
	weight float64
}

func (c *candidates) add(id tokenID, p float64) {
	if id == endOfText {
		if c.end == 0 {
			c.ids = append(c.ids, id)
		}
		c.end += p
		return
	}
	if c.p[id] == 0 {
		c.ids = append(c.ids, id)
	}
	c.p[id] += p
}

func (c *candidates) of(id tokenID) float64 {
	if id == endOfText {
		return c.end
	}
	return c.p[id]
}

func (c *candidates) reset() {
	for _, id := range c.ids {
		if id != endOfText {
			c.p[id] = 0
		}
	}
	c.ids, c.end = c.ids[:0], 0
}
