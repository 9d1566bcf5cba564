package inference

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	byteTokens    = 256  // ids 0..255 are the single bytes
	maxPieceBytes = 6    // length of the longest piece in bytes
	vocabulary    = 4096 // number of bytes and pieces; the special tokens follow
)

// Tokenizer maps text to token ids and back. Every token except the markers of the chat template
// stands for one to six bytes. Every byte string can be encoded, because bytes without a matching
// piece become one token each. English text has about four bytes per token.
type Tokenizer struct {
	ids    map[string]int
	pieces []string // by id; the special tokens are last
}

// specials returns the tokens to which no text is encoded, so that a client cannot write a role
// marker.
func specials() []string {
	return []string{"<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|tools|>", "<|image|>", "<|end|>"}
}

// fitTokenizer chooses the pieces that save the most tokens on text. A piece consists of whole
// characters and never crosses a word boundary.
func fitTokenizer(text string) *Tokenizer {
	counts := make(map[string]int)
	for rest := text; rest != ""; {
		n := chunkLen(rest)
		countPieces(counts, rest[:n])
		rest = rest[n:]
	}
	candidates := make([]string, 0, len(counts))
	for piece, n := range counts {
		if n > 1 {
			candidates = append(candidates, piece)
		}
	}
	score := func(s string) int { return counts[s] * (len(s) - 1) }
	sort.Slice(candidates, func(i, j int) bool {
		a, b := candidates[i], candidates[j]
		if x, y := score(a), score(b); x != y {
			return x > y
		}
		return a < b
	})
	candidates = candidates[:min(len(candidates), vocabulary-byteTokens)]

	t := &Tokenizer{ids: make(map[string]int, vocabulary)}
	for b := range byteTokens {
		t.add(string([]byte{byte(b)}))
	}
	for _, piece := range candidates {
		t.add(piece)
	}
	t.pieces = append(t.pieces, specials()...)
	return t
}

func (t *Tokenizer) add(piece string) {
	t.ids[piece] = len(t.pieces)
	t.pieces = append(t.pieces, piece)
}

func countPieces(counts map[string]int, chunk string) {
	for i := range chunk {
		for n := 2; n <= maxPieceBytes && i+n <= len(chunk); n++ {
			if piece := chunk[i : i+n]; utf8.ValidString(piece) {
				counts[piece]++
			}
		}
	}
}

type class byte

const (
	classWord class = iota
	classDigit
	classSpace
	classBreak
	classOther
)

func classOf(b byte) class {
	switch {
	case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= utf8.RuneSelf:
		return classWord
	case b >= '0' && b <= '9':
		return classDigit
	case b == ' ':
		return classSpace
	case b == '\n', b == '\r':
		return classBreak
	}
	return classOther
}

// chunkLen returns the length in bytes of the first chunk of s. A chunk is a word with one space
// before it, or a run of other bytes of one class.
func chunkLen(s string) int {
	i := 0
	if s[0] == ' ' && len(s) > 1 && classOf(s[1]) != classSpace {
		i = 1
	}
	c := classOf(s[i])
	for i++; i < len(s) && classOf(s[i]) == c; i++ {
	}
	return i
}

// Append encodes s and appends its token ids to dst.
func (t *Tokenizer) Append(dst []int, s string) []int {
	for s != "" {
		n := chunkLen(s)
		for chunk := s[:n]; chunk != ""; {
			id, size := t.longest(chunk)
			dst = append(dst, id)
			chunk = chunk[size:]
		}
		s = s[n:]
	}
	return dst
}

func (t *Tokenizer) longest(chunk string) (id, size int) {
	for n := min(maxPieceBytes, len(chunk)); n > 1; n-- {
		if id, ok := t.ids[chunk[:n]]; ok {
			return id, n
		}
	}
	return int(chunk[0]), 1
}

// Encode returns the token ids of s.
func (t *Tokenizer) Encode(s string) []int { return t.Append(nil, s) }

// Decode is the inverse of Encode. It fails for an id outside the vocabulary.
func (t *Tokenizer) Decode(ids []int) (string, error) {
	var b strings.Builder
	for _, id := range ids {
		if id < 0 || id >= len(t.pieces) {
			return "", fmt.Errorf("token id %d is not within 0..%d", id, len(t.pieces)-1)
		}
		b.WriteString(t.pieces[id])
	}
	return b.String(), nil
}

// special returns the id of one of the special tokens.
func (t *Tokenizer) special(name string) int {
	for id := len(t.pieces) - 1; id >= 0; id-- {
		if t.pieces[id] == name {
			return id
		}
	}
	return int(name[0])
}
