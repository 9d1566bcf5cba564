package openai

import (
	"bytes"
	"hash/maphash"
)

// past is what the choices of an answer said last in members that may repeat
// themselves: names, constants, and texts that hold all that came before. Its memory
// is fixed: where several members meet in a slot, an older one is forgotten, and then
// counts again.
type past struct {
	seed maphash.Seed // nobody can choose texts that meet
	last [32]utterance
}

// utterance is what one member said last.
type utterance struct {
	path, hash uint64
	length     int
}

// maxProbes is in how many slots a member is looked for.
const maxProbes = 4

// of is where the member at a path is remembered.
func (p *past) of(path uint64) *utterance {
	home := &p.last[path%uint64(len(p.last))]
	for i := range uint64(maxProbes) {
		switch u := &p.last[(path+i)%uint64(len(p.last))]; u.path {
		case path:
			return u
		case 0:
			return u // free
		}
	}
	return home
}

// fresh is what of the inside of a string the member at the reader's path did not say
// before: nothing of a repetition, the rest of a text that goes on, else all.
func (r *reader) fresh(raw []byte) []byte {
	if r.past == nil {
		r.past = &past{seed: maphash.MakeSeed()}
	}
	p := r.past
	u := p.of(r.path)
	rest := raw
	if u.path == r.path && len(raw) >= u.length && maphash.Bytes(p.seed, raw[:u.length]) == u.hash {
		rest = raw[u.length:]
	}
	*u = utterance{r.path, maphash.Bytes(p.seed, raw), len(raw)}
	return rest
}

// growing is what the members of an answer said that is known to be new in each event, as
// long as each of them says in each event all that it said before and more: some servers
// repeat the whole text. Its memory is fixed; what has no place in it counts whole.
type growing [8]grown

// grown is what one member has said. Each event of a server that repeats the whole text
// begins with the event before it, whole, from the first event on, and is longer. Pieces
// of a text do so only where the model says the same words again and again, and not for
// long. With enough signs of such a server, and growthBytes, it is sure.
type grown struct {
	path, hash uint64
	length     int // in bytes; -1: an event did not begin with the one before
	signs      int
}

const (
	enoughSigns = 8
	growthSigns = 4 // of an event that goes on with other words than it begins with; of any other, 1
	growthBytes = 20
)

var growthSeed = maphash.MakeSeed()

// rest is what of the inside of a string is new, where the member at the reader's path
// repeats all until now; else all of it.
func (r *reader) rest(raw []byte) []byte {
	if r.growing == nil {
		return raw
	}
	for i := range r.growing {
		if g := &r.growing[i]; g.path == r.path || g.path == 0 {
			return g.rest(r.path, raw)
		}
	}
	return raw
}

func (g *grown) rest(path uint64, raw []byte) []byte {
	sure := g.signs >= enoughSigns && g.length >= growthBytes
	rest := raw
	switch {
	case g.length < 0:
		return raw
	case g.path == 0: // the first event
	case len(raw) < g.length, len(raw) == g.length && !sure, maphash.Bytes(growthSeed, raw[:g.length]) != g.hash:
		g.length = -1
		return raw
	case sure:
		rest = raw[g.length:]
	case isAgain(raw, g.length):
		g.signs++
	default:
		g.signs += growthSigns
	}
	g.path, g.hash, g.length = path, maphash.Bytes(growthSeed, raw), len(raw)
	return rest
}

// isAgain reports whether a text is the same words again and again, of which the first n
// bytes are some.
func isAgain(text []byte, n int) bool {
	more := len(text) - n
	return bytes.Equal(text[:n], text[more:]) && bytes.Equal(text[n:], text[:more])
}

// mix is the path of the member with a name, within path.
func mix(path uint64, name []byte) uint64 {
	for _, c := range name {
		path = (path ^ uint64(c)) * fnvPrime
	}
	return (path ^ 0xff) * fnvPrime
}

// mixNumber is the path of an element, within path.
func mixNumber(path uint64, n int64) uint64 {
	h := (path ^ 0xfe ^ uint64(n)) * fnvPrime
	return h ^ h>>32
}

const fnvPrime = 1099511628211

// mark is how much a delta has.
type mark struct {
	bytes, dense int64
	text         int
}

func (d *delta) mark() mark { return mark{d.bytes, d.dense, len(d.text)} }

// reset takes back what was added since m.
func (d *delta) reset(m mark) { d.bytes, d.dense, d.text = m.bytes, m.dense, d.text[:m.text] }

// keepLarger keeps the larger one of two texts that are the same in two forms: the
// one added between first and second, and the one added since.
func (d *delta) keepLarger(first, second mark) {
	if d.bytes-second.bytes <= second.bytes-first.bytes {
		d.reset(second)
		return
	}
	d.bytes -= second.bytes - first.bytes
	d.dense -= second.dense - first.dense
	d.text = append(d.text[:first.text], d.text[second.text:]...)
}
