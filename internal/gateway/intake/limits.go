package intake

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"

	"sluice.example/sluice/l402"
)

// Rate is a token bucket: Burst tokens at once, and PerSecond tokens per second in the long run. A
// PerSecond of 0 means no limit.
type Rate struct {
	PerSecond float64
	Burst     int // at least 1
}

// ChallengeLimits bounds how often callers may ask for a challenge, because each challenge costs
// the Lightning node an invoice. A caller without a token counts by its address and by the networks
// around the address, so that neither one machine nor one provider's network can take what all
// callers share. An IPv6 customer has a /64, so a /64 counts like one address. A caller with a
// token counts only by its account.
type ChallengeLimits struct {
	Address Rate // one IPv4 address; one IPv6 address, and also its /64
	Subnet  Rate // IPv4 /24, IPv6 /48
	Network Rate // IPv4 /16, IPv6 /32
	Total   Rate // all callers without a token
	Account Rate // one account, with all its tokens and their attenuated copies
}

// DefaultChallengeLimits returns limits that leave more than half of the invoices to callers with a
// token. An lnd on a small machine makes 700 to 800 invoices per second, as measured. The burst is
// enough for a hundred first-time buyers behind one address.
func DefaultChallengeLimits() ChallengeLimits {
	return ChallengeLimits{
		Address: Rate{50, 200},
		Subnet:  Rate{100, 300},
		Network: Rate{200, 400},
		Total:   Rate{300, 600},
		Account: Rate{5, 100},
	}
}

// These are the levels of ChallengeLimits. LevelName has the names that metrics use.
const (
	levelAddress = iota
	levelSite    // IPv6 /64
	levelSubnet
	levelNetwork
	levelTotal
	LevelAccount
	levels
)

var levelNames = [levels]string{"address", "address", "subnet", "network", "total", "account"}

// LevelName returns what metrics call a level.
func LevelName(level int) string { return levelNames[level] }

// These are the lengths in bits of the prefixes by which each level counts addresses; 0: the level
// counts none.
var (
	prefixes4 = [levelTotal]int{levelAddress: 32, levelSubnet: 24, levelNetwork: 16}
	prefixes6 = [levelTotal]int{levelAddress: 128, levelSite: 64, levelSubnet: 48, levelNetwork: 32}
)

// Limiter has the buckets of ChallengeLimits. It is safe for concurrent use. Its memory is at most
// about 4 MiB, whatever callers do. Each level has its own table, so that a caller with many
// addresses does not displace the counts of networks.
type Limiter struct {
	seed  maphash.Seed // random, so that nobody can choose addresses that share a set
	start time.Time

	mu     sync.Mutex // held for well under a microsecond
	meters [levels]meter
	tables [levels]table
}

const (
	addressEntries = 1 << 16 // entries of 16 bytes in the table of each address level
	accountEntries = 1 << 13
)

// NewLimiter returns a Limiter with full buckets.
func NewLimiter(cfg ChallengeLimits, now time.Time) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed(), start: now}
	l.Limit(cfg)
	return l
}

// Limit changes the limits. The count of each limit that changes begins anew, because an entry has
// only the time when its bucket is full, which means nothing at another rate.
func (l *Limiter) Limit(cfg ChallengeLimits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for level, rate := range [levels]Rate{cfg.Address, cfg.Address, cfg.Subnet, cfg.Network, cfg.Total, cfg.Account} {
		before := l.meters[level]
		l.meters[level] = newMeter(rate)
		switch {
		case l.meters[level].off(), l.meters[level] == before:
		case level == levelTotal:
			l.tables[level] = make(table, 1)
		case level == LevelAccount:
			l.tables[level] = make(table, accountEntries/ways)
		default:
			l.tables[level] = make(table, addressEntries/ways)
		}
	}
}

// Stranger counts a caller without a token at all levels. If a level refuses, Stranger returns how
// long to wait and the level with the longest wait. A refused caller counts at no level, so that
// refused callers use up nothing that others share. Otherwise Stranger returns 0.
func (l *Limiter) Stranger(addr netip.Addr, now time.Time) (wait time.Duration, by int) {
	prefixes := &prefixes6
	if addr = addr.Unmap(); addr.Is4() {
		prefixes = &prefixes4
	}
	var keys [levelTotal + 1]uint64
	for level, bits := range prefixes {
		if bits > 0 {
			keys[level] = l.prefixKey(addr, bits)
		}
	}
	at := now.Sub(l.start).Nanoseconds()
	var found [levelTotal + 1]*entry
	var full [levelTotal + 1]int64
	l.mu.Lock()
	defer l.mu.Unlock()
	for level := range found {
		if l.meters[level].off() || (level != levelTotal && prefixes[level] == 0) {
			continue
		}
		var until, ns int64
		found[level], until = l.tables[level].find(keys[level])
		if full[level], ns = l.meters[level].take(until, at); time.Duration(ns) > wait {
			wait, by = time.Duration(ns), level
		}
	}
	if wait > 0 {
		return wait, by
	}
	for level, e := range found {
		if e != nil {
			*e = entry{keys[level], full[level]}
		}
	}
	return 0, 0
}

// Account counts a challenge for an account. It returns 0, or how long to wait; then the challenge
// does not count.
func (l *Limiter) Account(id l402.TokenID, now time.Time) (wait time.Duration) {
	key := maphash.Bytes(l.seed, id[:])
	at := now.Sub(l.start).Nanoseconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	meter := l.meters[LevelAccount]
	if meter.off() {
		return 0
	}
	e, until := l.tables[LevelAccount].find(key)
	full, ns := meter.take(until, at)
	if ns > 0 {
		return time.Duration(ns)
	}
	*e = entry{key, full}
	return 0
}

// prefixKey returns a hash of the first bits of an address. bits must be a multiple of 8.
func (l *Limiter) prefixKey(addr netip.Addr, bits int) uint64 {
	var b [17]byte
	b[0] = byte(addr.BitLen())
	if addr.Is4() {
		four := addr.As4()
		copy(b[1:], four[:])
	} else {
		sixteen := addr.As16()
		copy(b[1:], sixteen[:])
	}
	return maphash.Bytes(l.seed, b[:1+bits/8])
}

// meter is a Rate as a generic cell rate algorithm: the only state of a bucket is the time when the
// bucket is full again.
type meter struct {
	interval int64 // nanoseconds per token
	depth    int64 // nanoseconds in which an empty bucket becomes full
}

func newMeter(r Rate) meter {
	if r.PerSecond <= 0 {
		return meter{}
	}
	interval := max(1, int64(math.Round(float64(time.Second)/r.PerSecond)))
	return meter{interval, interval * int64(min(max(r.Burst, 1), 1<<20))}
}

func (m meter) off() bool { return m.interval == 0 }

// take takes one token from a bucket that is full again at until, in nanoseconds. It returns the
// new time when the bucket is full, and how long to wait if there is no token. A wait of 0 means
// that the token was taken.
func (m meter) take(until, now int64) (full, wait int64) {
	full = max(until, now) + m.interval
	return full, max(0, full-now-m.depth)
}

// ways is the number of entries in a set of a table. A key can only be in the set of its hash.
const ways = 8

// entry is one bucket. Its key is a hash of the address. Two addresses have the same hash once in
// 2^64 pairs.
type entry struct {
	key  uint64
	full int64 // when the bucket is full again; from then on the entry can be dropped
}

// table is a fixed number of sets of buckets.
type table [][ways]entry

// find returns the entry of key, and when its bucket is full. If key has no entry, find returns the
// entry of the set whose bucket is full first, with a full of 0. The caller replaces that entry by
// writing to it.
func (t table) find(key uint64) (e *entry, full int64) {
	set := &t[key%uint64(len(t))]
	least := &set[0]
	for i := range set {
		if e := &set[i]; e.key == key {
			return e, e.full
		} else if e.full < least.full {
			least = e
		}
	}
	return least, 0
}
