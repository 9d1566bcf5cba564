package config

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Size is a number of bytes.
type Size int64

// Rate is a price in msat per the unit of its key.
type Rate int64

// Store says where the ledger is: in a SQLite file or in a PostgreSQL database.
type Store struct {
	Path string // of the SQLite file; empty means PostgreSQL
	URL  Secret // of the PostgreSQL database, including the password
}

// Frequency is a token bucket. PerSecond is how many per second in the long run, and Burst is how many
// at once. A PerSecond of zero means no limit.
type Frequency struct {
	PerSecond float64
	Burst     int
}

// String returns a frequency as the file would write it.
func (f Frequency) String() string {
	if f.PerSecond == 0 {
		return "none"
	}
	return strconv.FormatFloat(f.PerSecond, 'f', -1, 64) + "/s burst " + strconv.Itoa(f.Burst)
}

// MaxDuration bounds every duration of a configuration.
const MaxDuration = 100 * 365 * 24 * time.Hour

var (
	errDuration = errors.New("want a duration such as 500ms, 15s, 10m, 12h or 365d")
	errSize     = errors.New("want a size such as 512KiB, 8MiB or 1GiB")
	errAmount   = errors.New("want an amount such as 150 sat or 1500 msat, at most 21 million bitcoin")
	errWhole    = errors.New("is not a whole number of msat")
	errRate     = errors.New("want a rate such as 50/s burst 200, 30/m burst 10 or none")
	errStore    = errors.New("want sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE")
	errPrefix   = errors.New("want an address or a network such as 10.0.0.0/8 or fd00::/8")
	errURL      = errors.New("want a URL such as http://10.0.0.5:8000")
	errLevel    = errors.New("want debug, info, warn or error")
	errLedgerID = errors.New("want 32 hex digits")
)

// parseDuration reads a duration in Go's form, which may begin with days ("1d12h").
func parseDuration(s string) (time.Duration, error) {
	var sum time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n > uint64(MaxDuration/(24*time.Hour)) {
			return 0, errDuration
		}
		sum, s = time.Duration(n)*24*time.Hour, rest
		if s == "" {
			return sum, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > MaxDuration || s[0] == '+' || s[0] == '-' {
		return 0, errDuration
	}
	return sum + d, nil
}

// parseSize reads whole bytes with a binary or decimal unit, up to 1 TiB.
func parseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "BKMGTikb ")
	n, err := strconv.ParseUint(digits, 10, 41)
	if err != nil {
		return 0, errSize
	}
	factor := map[string]uint64{
		"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 1e3, "MB": 1e6, "GB": 1e9,
	}[strings.TrimSpace(s[len(digits):])]
	if factor == 0 || n > (1<<40)/factor {
		return 0, errSize
	}
	return Size(n * factor), nil
}

// maxFrequency bounds both numbers of a Frequency.
const maxFrequency = 1_000_000

// parseFrequency reads "50/s burst 200", per second, minute or hour, or "none".
func parseFrequency(s string) (Frequency, error) {
	if s == "none" {
		return Frequency{}, nil
	}
	fields := strings.Fields(s)
	if len(fields) != 3 || fields[1] != "burst" {
		return Frequency{}, errRate
	}
	count, unit, _ := strings.Cut(fields[0], "/")
	per := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseUint(count, 10, 32)
	burst, burstErr := strconv.ParseUint(fields[2], 10, 32)
	if per == 0 || err != nil || burstErr != nil || n < 1 || n > maxFrequency || burst < 1 || burst > maxFrequency {
		return Frequency{}, errRate
	}
	return Frequency{PerSecond: float64(n) / per, Burst: int(burst)}, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(s); err == nil {
			p, err = addr.Prefix(addr.BitLen())
		}
	}
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, errPrefix
	}
	return p.Masked(), nil
}

// parseAmount reads "150 sat", "0.5 sat" or "1500 msat".
func parseAmount(s string) (l402.Msat, error) {
	msat, err := parseMoney(s)
	if err != nil {
		return 0, err
	}
	return wholeMsat(msat, int64(l402.MaxMsat))
}

// parseRate reads an amount per unit, for example "150 sat/Mtok". The price of tokens may also be given
// per token (tok) or per thousand (ktok), and the price of a call without a unit.
func parseRate(s, unit string) (Rate, error) {
	amount, per, ok := strings.Cut(s, "/")
	per = strings.TrimSpace(per)
	if !ok && unit == "call" {
		per = unit
	}
	factor := int64(1)
	switch {
	case per == unit:
	case unit == "Mtok" && per == "ktok":
		factor = 1_000
	case unit == "Mtok" && per == "tok":
		factor = 1_000_000
	default:
		return 0, errors.New("want a price such as 150 sat/" + unit)
	}
	msat, err := parseMoney(amount)
	if err != nil {
		return 0, errors.New("want a price such as 150 sat/" + unit)
	}
	whole, err := wholeMsat(msat.Mul(msat, big.NewRat(factor, 1)), pricing.MaxRate)
	if err == errWhole {
		err = errors.New("is not a whole number of msat per " + unit)
	}
	return Rate(whole), err
}

// parseMoney reads a decimal number and its unit, and returns msat. The length of the number is
// bounded, so that exact arithmetic stays cheap.
func parseMoney(s string) (*big.Rat, error) {
	number, unit := s, ""
	if i := strings.IndexAny(s, " sm"); i >= 0 {
		number, unit = s[:i], strings.TrimSpace(s[i:])
	}
	whole, frac, dotted := strings.Cut(number, ".")
	if !isDigits(whole) || len(number) > 32 || (dotted && !isDigits(frac)) {
		return nil, errAmount
	}
	r, ok := new(big.Rat).SetString(number)
	switch {
	case !ok:
		return nil, errAmount
	case unit == "msat":
		return r, nil
	case unit == "sat":
		return r.Mul(r, big.NewRat(int64(l402.MsatPerSat), 1)), nil
	default:
		return nil, errAmount
	}
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func wholeMsat(r *big.Rat, limit int64) (l402.Msat, error) {
	if !r.IsInt() {
		return 0, errWhole
	}
	if !r.Num().IsInt64() || r.Num().Int64() > limit {
		return 0, errors.New("is more than " + strconv.FormatInt(limit, 10) + " msat")
	}
	return l402.Msat(r.Num().Int64()), nil
}

// parseStore reads "sqlite:PATH" or a PostgreSQL URL. Its errors do not show the text, because the text
// may hold a password.
func parseStore(s string) (Store, error) {
	if path, ok := strings.CutPrefix(s, "sqlite:"); ok {
		if path == "" {
			return Store{}, errStore
		}
		return Store{Path: path}, nil
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return Store{}, errStore
	}
	return Store{URL: Secret(s)}, nil
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return nil, errURL // not url's own error, because that shows the text, which may hold a password
	}
	return u, nil
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errLevel
}

func parseLedgerID(s string) (id l402.LedgerID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, errLedgerID
	}
	return l402.LedgerID(b), nil
}
