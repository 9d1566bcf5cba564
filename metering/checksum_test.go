package metering

import (
	"reflect"
	"testing"
)

// TestChecksums pins the checksums, because rows of other versions carry them: a change of what
// they are over, or of its order, would make an audit find all of those rows damaged.
func TestChecksums(t *testing.T) {
	c := ChargeRow{Hold: HoldID{1}, Account: [32]byte{2}, Prev: HoldID{3}, ChainPrev: HoldID{4}, Chain: [32]byte{5},
		Lock: [32]byte{6}, Service: "inference", Model: "m", Amount: 7, Epoch: 8, Rates: []byte{1, 9}}
	b := BudgetRow{ID: [32]byte{1}, Account: [32]byte{2}, Parent: [32]byte{3}, Limit: 4, ValidUntil: 5}
	if got := [2]int32{c.checksum(), b.checksum()}; got != [2]int32{pinnedCharge, pinnedBudget} {
		t.Errorf("checksums %v", got)
	}
	// What never changes is covered, and what changes is not.
	later := map[string]bool{"At": true, "Source": true, "Outcome": true, "Backend": true, "Usage": true, "Clamped": true,
		"Delivered": true, "Charged": true, "Unbilled": true, "Provisional": true, "Checksum": true, "Spent": true,
		"Held": true, "Children": true, "Last": true}
	for _, row := range []interface{ checksum() int32 }{&c, &b} {
		before, v := row.checksum(), reflect.ValueOf(row).Elem()
		for i := range v.NumField() {
			name, old := v.Type().Field(i).Name, reflect.New(v.Field(i).Type()).Elem()
			old.Set(v.Field(i))
			v.Field(i).Set(other(v.Field(i)))
			if moved := row.checksum() != before; moved == later[name] {
				t.Errorf("%T.%s: another checksum: %v", row, name, moved)
			}
			v.Field(i).Set(old)
		}
	}
}

// other is a value that differs from v.
func other(v reflect.Value) reflect.Value {
	w := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Array:
		w.Set(v)
		w.Index(w.Len() - 1).SetUint(255)
	case reflect.Slice:
		w.SetBytes(append(append([]byte{}, v.Bytes()...), 1))
	case reflect.String:
		w.SetString(v.String() + "x")
	case reflect.Bool:
		w.SetBool(!v.Bool())
	default:
		w.SetInt(v.Int() + 1)
	}
	return w
}

const pinnedCharge, pinnedBudget = -736478945, 933164127
