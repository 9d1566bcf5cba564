package intake

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"sluice.example/sluice/l402"
)

// flood asks the limiter once for each of n addresses at one moment, and returns how many requests
// it allowed.
func flood(l *Limiter, at time.Time, n int, addr func(i int) netip.Addr) (passed int) {
	for i := range n {
		if wait, _ := l.Stranger(addr(i), at); wait == 0 {
			passed++
		}
	}
	return passed
}

func v4(a, b, c, d int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(d)})
}

// v6 returns an address below 2001:db8::/32, or below another /32 for another high.
func v6(high uint32, site uint32, host uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:], high)
	binary.BigEndian.PutUint32(b[4:], site)
	binary.BigEndian.PutUint64(b[8:], host)
	return netip.AddrFrom16(b)
}

func TestEachLevelHasItsOwnLimit(t *testing.T) {
	cfg := DefaultChallengeLimits()
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name  string
		level string
		addr  func(i int) netip.Addr
		burst int
	}{
		{"one address", "address", func(int) netip.Addr { return v4(127, 0, 0, 1) }, cfg.Address.Burst},
		{"the same, mapped into IPv6", "address", func(i int) netip.Addr {
			if i%2 == 0 {
				return v4(10, 0, 0, 1)
			}
			return netip.AddrFrom16(v4(10, 0, 0, 1).As16())
		}, cfg.Address.Burst},
		{"a /24", "subnet", func(i int) netip.Addr { return v4(127, 0, 0, i%250) }, cfg.Subnet.Burst},
		{"a /16", "network", func(i int) netip.Addr { return v4(127, 3, i%256, i/256%256) }, cfg.Network.Burst},
		{"10,000 loopback addresses", "total", func(i int) netip.Addr { return v4(127, i%100, i/100%100, 1) }, cfg.Total.Burst},
		{"one IPv6 address", "address", func(int) netip.Addr { return v6(0x20010db8, 1, 1) }, cfg.Address.Burst},
		{"an IPv6 /64", "address", func(i int) netip.Addr { return v6(0x20010db8, 1, uint64(i)) }, cfg.Address.Burst},
		{"an IPv6 /48", "subnet", func(i int) netip.Addr { return v6(0x20010db8, 7<<16|uint32(i&0xffff), 1) }, cfg.Subnet.Burst},
		{"an IPv6 /32", "network", func(i int) netip.Addr { return v6(0x20010db8, uint32(i)<<16, 1) }, cfg.Network.Burst},
		{"many IPv6 /32s", "total", func(i int) netip.Addr { return v6(uint32(0x20010000+i), 1, 1) }, cfg.Total.Burst},
	} {
		l := NewLimiter(cfg, now)
		if got := flood(l, now, 20_000, c.addr); got != c.burst {
			t.Errorf("%s: %d passed at once, want %d", c.name, got, c.burst)
		}
		wait, level := l.Stranger(c.addr(0), now)
		if wait <= 0 || wait > time.Second || levelNames[level] != c.level {
			t.Errorf("%s: refused for %v by %s, want up to a second by %s", c.name, wait, levelNames[level], c.level)
		}
	}
}

func TestLimitsHoldOverAMinute(t *testing.T) {
	cfg := DefaultChallengeLimits()
	start := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		addr func(i int) netip.Addr
		rate Rate
	}{
		"one address":       {func(int) netip.Addr { return v4(127, 0, 0, 1) }, cfg.Address},
		"10,000 of 100 /16": {func(i int) netip.Addr { return v4(127, i%100, i/100%100, 1) }, cfg.Total},
	} {
		l := NewLimiter(cfg, start)
		passed := 0
		for i := range 60_000 { // a thousand requests per second
			now := start.Add(time.Duration(i) * time.Millisecond)
			passed += flood(l, now, 1, func(int) netip.Addr { return c.addr(i) })
		}
		want := c.rate.Burst + 60*int(c.rate.PerSecond)
		if passed < want-2 || passed > want {
			t.Errorf("%s: %d passed in a minute, want %d", name, passed, want)
		}
	}
}

func TestRefusedCallersUseUpNothingOfTheirNeighbours(t *testing.T) {
	l := NewLimiter(DefaultChallengeLimits(), time.Unix(1_800_000_000, 0))
	now := time.Unix(1_800_000_000, 0)
	flood(l, now, 100_000, func(int) netip.Addr { return v4(192, 0, 2, 1) })
	if got := flood(l, now, 100, func(int) netip.Addr { return v4(192, 0, 2, 2) }); got != 100 {
		t.Errorf("a neighbour of the flood got %d of 100", got)
	}
}

func TestRetryAfterIsEnough(t *testing.T) {
	l := NewLimiter(ChallengeLimits{Address: Rate{0.5, 1}}, time.Unix(1_800_000_000, 0))
	now, addr := time.Unix(1_800_000_000, 0), v4(1, 2, 3, 4)
	if wait, _ := l.Stranger(addr, now); wait != 0 {
		t.Fatalf("the first has to wait %v", wait)
	}
	wait, _ := l.Stranger(addr, now)
	if wait != 2*time.Second {
		t.Errorf("wait %v, want 2s", wait)
	}
	if again, _ := l.Stranger(addr, now.Add(wait)); again != 0 {
		t.Errorf("after the wait it is still %v", again)
	}
}

// TestCyclingAddressesNeitherGrowMemoryNorForgetNetworks: a caller with millions of addresses
// displaces no count of a network. The network remains limited, and the memory does not grow.
func TestCyclingAddressesNeitherGrowMemoryNorForgetNetworks(t *testing.T) {
	cfg := DefaultChallengeLimits()
	cfg.Total = Rate{}
	now := time.Unix(1_800_000_000, 0)
	l := NewLimiter(cfg, now)
	memory := func() (n int) {
		for _, t := range l.tables {
			n += len(t) * int(unsafe.Sizeof([ways]entry{}))
		}
		return n
	}
	before := memory()
	if before > 5<<20 {
		t.Errorf("the tables take %d bytes", before)
	}
	r := rand.New(rand.NewPCG(1, 2))
	passed := flood(l, now, 2_000_000, func(int) netip.Addr { return v6(0x20010db8, r.Uint32(), r.Uint64()) })
	if passed != cfg.Network.Burst {
		t.Errorf("%d of one /32 passed, want %d", passed, cfg.Network.Burst)
	}
	if allocs := testing.AllocsPerRun(1000, func() { l.Stranger(v6(0x20010db8, r.Uint32(), r.Uint64()), now) }); allocs != 0 || memory() != before {
		t.Errorf("a refusal allocates %v times", allocs)
	}
	// Many networks at once do not displace the count of the network that is limited.
	flood(l, now, 200_000, func(i int) netip.Addr { return v4(1+i%200, i/200%250, i/50_000, i%7) })
	if wait, _ := l.Stranger(v6(0x20010db8, 1, 1), now); wait == 0 {
		t.Error("the limited network was forgotten")
	}
}

func TestAccountsHaveTheirOwnLimit(t *testing.T) {
	cfg := DefaultChallengeLimits()
	now := time.Unix(1_800_000_000, 0)
	l := NewLimiter(cfg, now)
	flood(l, now, 10_000, func(i int) netip.Addr { return v4(10, i%200, i/200, 1) }) // uses up what all callers without a token share
	one, other := l402.NewTokenID(), l402.NewTokenID()
	passed := 0
	for range 1000 {
		if l.Account(one, now) == 0 {
			passed++
		}
	}
	if passed != cfg.Account.Burst || l.Account(one, now) > time.Second || l.Account(other, now) != 0 {
		t.Errorf("%d passed, want %d; wait %v, of another %v", passed, cfg.Account.Burst, l.Account(one, now), l.Account(other, now))
	}
}

func TestLimitsThatAreOff(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := NewLimiter(ChallengeLimits{Subnet: Rate{1, 2}}, now)
	if got := flood(l, now, 10, func(i int) netip.Addr { return v4(1, 2, 3, i) }); got != 2 {
		t.Errorf("%d of a limited subnet passed, want 2", got)
	}
	if got := flood(l, now, 500, func(i int) netip.Addr { return v4(1, 2, i%250, i/250) }); got < 499-2 {
		t.Errorf("%d of 500 passed", got)
	}
	if l.Account(l402.TokenID{1}, now) != 0 {
		t.Error("an account was limited")
	}
}

func BenchmarkStrangerLimit(b *testing.B) {
	l := NewLimiter(DefaultChallengeLimits(), time.Now())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := rand.New(rand.NewPCG(1, 2))
		for pb.Next() {
			l.Stranger(v6(0x20010db8, r.Uint32(), r.Uint64()), time.Now())
		}
	})
}
