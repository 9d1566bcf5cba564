package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sluice.example/sluice/metering"
)

// TestWhatIsSynced checks which setting of synchronous each kind of commit uses. The setting cannot change within a
// transaction, so the setting after the commit was in force during the commit.
func TestWhatIsSynced(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const normal, full = 1, 2
	owner := metering.OwnerID{1}
	apply := func(likely, durable bool) func() error {
		return func() error {
			b := &metering.Batch{Likely: likely}
			return d.Apply(ctx, b, func() {
				b.Durable = durable
				b.Transfers = append(b.Transfers, metering.TransferRow{Kind: metering.TransferDeposit, Debit: []byte("a"), Credit: []byte("b"), Amount: 1})
			})
		}
	}
	beat := func() error { _, _, _, err := d.Beat(ctx, owner, 1, nil); return err }
	for i, step := range []struct {
		name string
		do   func() error
		want int64
	}{
		{"a heartbeat", beat, normal},
		{"a batch of which nobody expected it", apply(false, true), full},
		{"a batch of holds", apply(false, false), normal},
		{"a batch that moves money", apply(true, true), full},
		{"a heartbeat after it", beat, normal},
		{"a fence", func() error { _, err := d.Fence(ctx, owner, 2); return err }, full},
	} {
		if err := step.do(); err != nil {
			t.Fatal(step.name, err)
		}
		q, err := d.w.prepare("PRAGMA synchronous")
		if err != nil {
			t.Fatal(err)
		}
		if more, err := q.step(); err != nil || !more || q.colInt(0) != step.want {
			t.Errorf("%d: %s: synchronous is %d, want %d (%v)", i, step.name, q.colInt(0), step.want, err)
		}
		q.reset()
	}
	q, err := d.w.prepare("SELECT count(*) FROM transfers")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.step(); err != nil || q.colInt(0) != 3 {
		t.Errorf("%d transfers, %v", q.colInt(0), err)
	}
	q.reset()
}

// TestBrokenConnectionIsReplaced checks that the next transaction uses another connection after a failure, because the
// failure may have left the connection in any state.
func TestBrokenConnectionIsReplaced(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	failed := errors.New("failed")
	err = d.write(ctx, true, func(w *writer) (bool, error) {
		return false, errors.Join(w.script("PRAGMA query_only=ON"), failed)
	})
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if now, _, fenced, err := d.Beat(ctx, metering.OwnerID{1}, 4, nil); now != 4 || fenced || err != nil {
		t.Errorf("after a failure: %d, %v, %v", now, fenced, err)
	}
	// A refused row keeps the connection.
	before := d.w
	err = d.write(ctx, true, func(w *writer) (bool, error) { return true, w.script("DELETE FROM transfers; UPDATE meta SET one = 2") })
	if !errors.Is(err, metering.ErrRejected) || d.w != before {
		t.Errorf("after a refusal: another connection %v, %v", d.w != before, err)
	}
}

// TestClockNeverStepsBack checks that the time of a batch is never before the time of an earlier batch.
func TestClockNeverStepsBack(t *testing.T) {
	ctx := context.Background()
	at := time.UnixMicro(5000)
	d, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), WithClock(func() time.Time { return at }))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i, step := range []struct{ clock, want int64 }{{5000, 5000}, {9000, 9000}, {2000, 9000}, {8999, 9000}, {9001, 9001}} {
		at = time.UnixMicro(step.clock)
		var b metering.Batch
		if err := d.Apply(ctx, &b, func() {}); err != nil || b.Now != step.want {
			t.Errorf("batch %d at %d: now is %d, want %d (%v)", i, step.clock, b.Now, step.want, err)
		}
	}
}
