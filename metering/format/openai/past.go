package openai

import "hash/maphash"

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
