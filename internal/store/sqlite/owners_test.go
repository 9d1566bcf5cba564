package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"sluice.example/sluice/metering"
)

// TestFencedOwnersAreForgotten checks that the row of an owner that was taken for dead is kept for a day, and as long
// as the owner has holds. The row of a living owner is always kept.
func TestFencedOwnersAreForgotten(t *testing.T) {
	ctx, now := context.Background(), time.Now()
	d, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), WithClock(func() time.Time { return now }))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range 3 {
		owner := metering.OwnerID{byte(i + 1)}
		if _, _, _, err := d.Beat(ctx, owner, 1, nil); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // this owner remains alive
		}
		if _, err := d.Fence(ctx, owner, 1); err != nil {
			t.Fatal(err)
		}
	}
	err = d.write(ctx, false, func(w *writer) (bool, error) {
		return true, w.script(`INSERT INTO holds (id, account, amount, owner, context, usage, source)
			VALUES (zeroblob(16), zeroblob(32), 1, x'02000000000000000000000000000000', x'', x'', 'none')`)
	})
	if err != nil {
		t.Fatal(err)
	}
	left := func(want int) {
		t.Helper()
		if _, err := d.Clean(ctx, 10); err != nil {
			t.Fatal(err)
		}
		if list, err := d.Owners(ctx); len(list) != want || err != nil {
			t.Errorf("owners %v, %v; want %d", list, err, want)
		}
	}
	left(3)
	now = now.Add(ownersKept + time.Hour)
	left(2)
}
