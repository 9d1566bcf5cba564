package gateway

import "sync/atomic"

// freeBody is how much of each body, in bytes, is not counted against
// bodyMemory: a usual chat fits, so that it is quoted and served even while
// large bodies are refused. The number of requests bounds the sum.
const freeBody = 16 << 10

// bodyMemory bounds the bytes of all bodies that are in memory at once, and of
// answers that are kept beyond what each may take. Callers
// without a token share a part of their own, so that strangers with large
// bodies take nothing from those who pay.
type bodyMemory struct {
	holders, strangers pool
}

type pool struct {
	used, most atomic.Int64
}

func newBodyMemory(most int64) *bodyMemory {
	m := new(bodyMemory)
	m.limit(most)
	return m
}

// limit sets the bound; what is in memory stays there.
func (m *bodyMemory) limit(most int64) {
	m.holders.most.Store(most - most/8)
	m.strangers.most.Store(most / 8)
}

// inUse is how many bytes the bodies take of callers with a token, and of strangers.
func (m *bodyMemory) inUse() (holders, strangers int64) {
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

// bodyUse is what one request took of a pool.
type bodyUse struct {
	pool  *pool
	bytes int64
}

// of says of which part is taken: that of callers with a token, or of strangers.
func (u *bodyUse) of(m *bodyMemory, holder bool) {
	u.pool = &m.strangers
	if holder {
		u.pool = &m.holders
	}
}

// grow makes the use cover a buffer of size bytes.
func (u *bodyUse) grow(size int) bool {
	more := int64(size) - freeBody - u.bytes
	return more <= 0 || u.take(more)
}

// take takes n bytes more, or none.
func (u *bodyUse) take(n int64) bool {
	if !u.pool.take(n) {
		return false
	}
	u.bytes += n
	return true
}

// release gives everything back; nothing may refer to the body any more.
func (u *bodyUse) release() {
	if u.bytes > 0 {
		u.pool.used.Add(-u.bytes)
		u.bytes = 0
	}
}
