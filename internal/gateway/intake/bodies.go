package intake

import "sync/atomic"

// FreeBody is how many bytes of each body do not count against Bodies. A usual chat fits into
// FreeBody, so that it is served even while large bodies are refused. The number of requests bounds
// the sum of these bytes.
const FreeBody = 16 << 10

// Bodies bounds the bytes in memory of all bodies, and of answers that are longer than each may be
// without counting. Callers without a token share an eighth of the bound, and the others have the
// rest, so that strangers with large bodies take nothing from callers who pay. It is safe for
// concurrent use.
type Bodies struct {
	holders, strangers pool
}

type pool struct {
	used, most atomic.Int64
}

// NewBodies returns Bodies with a bound of most bytes.
func NewBodies(most int64) *Bodies {
	m := new(Bodies)
	m.Limit(most)
	return m
}

// Limit changes the bound to most bytes. Bodies that are in memory stay there.
func (m *Bodies) Limit(most int64) {
	m.holders.most.Store(most - most/8)
	m.strangers.most.Store(most / 8)
}

// InUse returns how many bytes the bodies of callers with a token take, and the bodies of strangers.
func (m *Bodies) InUse() (holders, strangers int64) {
	return m.holders.used.Load(), m.strangers.used.Load()
}

// take takes n bytes, or nothing: then it returns false.
func (p *pool) take(n int64) bool {
	if p.used.Add(n) > p.most.Load() {
		p.used.Add(-n)
		return false
	}
	return true
}

// BodyUse is what one request has taken of Bodies. It belongs to that request. The zero value has
// taken nothing.
type BodyUse struct {
	pool  *pool
	bytes int64
}

// From chooses the part of Bodies for the request: that of callers with a token, or that of
// strangers. It must be called before Grow and Take.
func (u *BodyUse) From(m *Bodies, holder bool) {
	u.pool = &m.strangers
	if holder {
		u.pool = &m.holders
	}
}

// Grow takes what a buffer of size bytes needs in all; false means that there is no room for it.
func (u *BodyUse) Grow(size int) bool {
	more := int64(size) - FreeBody - u.bytes
	return more <= 0 || u.Take(more)
}

// Take takes n more bytes, or nothing: then it returns false.
func (u *BodyUse) Take(n int64) bool {
	if !u.pool.take(n) {
		return false
	}
	u.bytes += n
	return true
}

// Release gives everything back. The caller must have dropped the body.
func (u *BodyUse) Release() {
	if u.bytes > 0 {
		u.pool.used.Add(-u.bytes)
		u.bytes = 0
	}
}
