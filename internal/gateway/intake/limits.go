package intake

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"

	"sluice.example/sluice/l402"
)

// Rate is a token bucket: Burst at once, PerSecond in the long run. A
// PerSecond of zero is no limit.
type Rate struct {
	PerSecond float64
	Burst     int // at least 1
}

// ChallengeLimits bounds how often callers may ask for a challenge, since each
// one costs the Lightning node an invoice. Callers without a token are counted
// by their address and by the networks around it, so that neither one machine
// nor one provider's range can take what all share. An IPv6 customer has a /64,
// so that counts like one address. A caller with a token is counted by its
// account only.
type ChallengeLimits struct {
	Address Rate // IPv4 address; IPv6 address, and again its /64
	Subnet  Rate // IPv4 /24, IPv6 /48
	Network Rate // IPv4 /16, IPv6 /32
	Total   Rate // all callers without a token
	Account Rate // one account, all its tokens and their attenuated copies together
}

// DefaultChallengeLimits leaves more than half of what an lnd on a small
// machine makes (700 to 800 invoices per second, measured) to callers who have
// paid before. A hundred first-time buyers behind one address fit into the
// burst.
func DefaultChallengeLimits() ChallengeLimits {
	return ChallengeLimits{
		Address: Rate{50, 200},
		Subnet:  Rate{100, 300},
		Network: Rate{200, 400},
		Total:   Rate{300, 600},
		Account: Rate{5, 100},
	}
}

// Levels of ChallengeLimits, as metrics name them.
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

// LevelName is what metrics call a level.
func LevelName(level int) string { return levelNames[level] }

// Prefix lengths in bits of the levels that are about addresses; 0: none.
var (
	prefixes4 = [levelTotal]int{levelAddress: 32, levelSubnet: 24, levelNetwork: 16}
	prefixes6 = [levelTotal]int{levelAddress: 128, levelSite: 64, levelSubnet: 48, levelNetwork: 32}
)

// Limiter has the buckets of ChallengeLimits, and is safe for concurrent use. Their memory is fixed,
// about 4 MiB, whatever callers do. Each level has a table of its own, so that
// a caller who goes through many addresses drives out no network's count.
type Limiter struct {
	seed  maphash.Seed // nobody can choose addresses that meet in a table
	start time.Time

	mu     sync.Mutex // held for well under a microsecond
	meters [levels]meter
	tables [levels]table
}

const (
	addressEntries = 1 << 16 // in each table of the address levels, 16 bytes per entry
	accountEntries = 1 << 13
)

// NewLimiter counts from now on.
func NewLimiter(cfg ChallengeLimits, now time.Time) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed(), start: now}
	l.Limit(cfg)
	return l
}

// Limit sets the bounds. Where one changes, its count begins anew: what is kept is the
// time when a bucket is full, which says nothing at another rate.
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

// Stranger counts a caller without a token. It returns zero, or how long to
// wait and the level that says so; what is refused counts nowhere, so that
// nobody uses up what others share by being refused.
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

// Account counts a challenge made for an account: zero, or how long to wait.
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

// prefixKey hashes the first bits of an address, whole bytes of it.
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

// meter is a Rate as a generic cell rate algorithm: the state of a bucket is
// the one time when it will be full again.
type meter struct {
	interval int64 // nanoseconds per token
	depth    int64 // nanoseconds to fill an empty bucket
}

func newMeter(r Rate) meter {
	if r.PerSecond <= 0 {
		return meter{}
	}
	interval := max(1, int64(math.Round(float64(time.Second)/r.PerSecond)))
	return meter{interval, interval * int64(min(max(r.Burst, 1), 1<<20))}
}

func (m meter) off() bool { return m.interval == 0 }

// take takes one token at a time from a bucket that is full again at until. It
// returns the new such time, and how long to wait if there is no token: zero
// when it was taken.
func (m meter) take(until, now int64) (full, wait int64) {
	full = max(until, now) + m.interval
	return full, max(0, full-now-m.depth)
}

// ways is how many entries an address may be in.
const ways = 8

// entry is one bucket. The hash stands for the address: two of them meet once
// in 2^64.
type entry struct {
	key  uint64
	full int64 // when the bucket is full again; by then the entry says nothing
}

// table is a fixed number of buckets.
type table [][ways]entry

// find returns the entry of key and when its bucket is full. A key that has
// none gets the entry that says least, which is given up only by writing to
// it.
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
