package pricing

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// byName finds a unit by its name in a usage. byRate finds a unit by the name of its rate.
var byName, byRate = index((*spec).usageName), index((*spec).rateName)

func (s *spec) usageName() string { return s.name }
func (s *spec) rateName() string  { return s.rate }

func index(name func(*spec) string) map[string]Unit {
	m := make(map[string]Unit, unitEnd)
	for _, u := range AllUnits() {
		m[name(&specs[u])] = u
	}
	return m
}

// MarshalJSON writes the counts that are not zero, by the names of their units.
func (u Units) MarshalJSON() ([]byte, error) {
	return marshal((*[unitEnd]int64)(&u), (*spec).usageName)
}

// MarshalJSON writes the rates that are not zero, by their names.
func (r Rates) MarshalJSON() ([]byte, error) { return marshal((*[unitEnd]int64)(&r), (*spec).rateName) }

// UnmarshalJSON reads counts by the names of their units. It does not change a count that the object
// lacks. It ignores unknown names, because a client may be older than the gateway that it asks.
func (u *Units) UnmarshalJSON(b []byte) error { return unmarshal(b, (*[unitEnd]int64)(u), byName) }

// UnmarshalJSON reads rates by their names. It does not change a rate that the object lacks. It ignores
// unknown names, because a gateway may be older than the gateway that published the price, and cannot
// meter a unit that it does not know.
func (r *Rates) UnmarshalJSON(b []byte) error { return unmarshal(b, (*[unitEnd]int64)(r), byRate) }

// String returns the JSON of the usage.
func (u Units) String() string { b, _ := u.MarshalJSON(); return string(b) }

// String returns the JSON of the rate card.
func (r Rates) String() string { b, _ := r.MarshalJSON(); return string(b) }

// marshal fails if v has a number for NoUnit.
func marshal(v *[unitEnd]int64, name func(*spec) string) ([]byte, error) {
	if v[NoUnit] != 0 {
		return nil, fmt.Errorf("%d of no unit: %w", v[NoUnit], ErrUsage)
	}
	b := []byte{'{'}
	for i, n := range v {
		if n == 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name(&specs[i])...), `":`...)
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, '}'), nil
}

func unmarshal(b []byte, v *[unitEnd]int64, names map[string]Unit) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	for name, raw := range members {
		u, ok := names[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, &v[u]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
