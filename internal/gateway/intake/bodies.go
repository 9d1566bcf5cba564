package intake

import "sync/atomic"

// FreeBody is how much of each body, in bytes, is not counted against
// Bodies: a usual chat fits, so that it is quoted and served even while
// large bodies are refused. The number of requests bounds the sum.
const FreeBody = 16 << 10

// Bodies bounds the bytes of all bodies that are in memory at once, and of
// answers that are kept beyond what each may take. Callers without a token share
// an eighth of their own, so that strangers with large bodies take nothing from
// those who pay. It is safe for concurrent use.
type Bodies struct {
	holders, strangers pool
}

type pool struct {
	used, most atomic.Int64
}

// NewBodies bounds them to most bytes.
func NewBodies(most int64) *Bodies {
	m := new(Bodies)
	m.Limit(most)
	return m
}

// Limit sets the bound; what is in memory stays there.
func (m *Bodies) Limit(most int64) {
	m.holders.most.Store(most - most/8)
	m.strangers.most.Store(most / 8)
}

// InUse is how many bytes the bodies take of callers with a token, and of strangers.
func (m *Bodies) InUse() (holders, strangers int64) {
	return m.holders.used.Load(), m.strangers.used.Load()
}

// take takes n bytes, or none.
func (p *pool) take(n int64) bool {
	if p.used.Add(n) > p.most.Load() {
		p.used.Add(-n)
		return false
	}
	return true
}

// BodyUse is what one request took of Bodies. It belongs to that request; the zero value
// has taken nothing.
type BodyUse struct {
	pool  *pool
	bytes int64
}

// From says which part is taken from: that of callers with a token, or of strangers. It
// comes before Grow and Take.
func (u *BodyUse) From(m *Bodies, holder bool) {
	u.pool = &m.strangers
	if holder {
		u.pool = &m.holders
	}
}

// Grow makes the use cover a buffer of size bytes.
func (u *BodyUse) Grow(size int) bool {
	more := int64(size) - FreeBody - u.bytes
	return more <= 0 || u.Take(more)
}

// Take takes n bytes more, or none.
func (u *BodyUse) Take(n int64) bool {
	if !u.pool.take(n) {
		return false
	}
	u.bytes += n
	return true
}

// Release gives everything back; nothing may refer to the body any more.
func (u *BodyUse) Release() {
	if u.bytes > 0 {
		u.pool.used.Add(-u.bytes)
		u.bytes = 0
	}
}
