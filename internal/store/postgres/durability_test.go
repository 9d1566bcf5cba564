package postgres

import (
	"context"
	"testing"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/metering"
)

// TestSynchronousCommit checks which synchronous_commit each kind of batch uses, on a server whose default is to answer
// before a commit is on the disk.
func TestSynchronousCommit(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, pgtest.Start(t)+"&options=-csynchronous_commit%3Doff")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for durable, want := range map[bool]string{true: "on", false: "off"} {
		conn, err := d.writers.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if _, err := conn.Exec(ctx, "begin"); err != nil {
			t.Fatal(err)
		}
		if _, err := save(ctx, conn.Conn(), &metering.Batch{Durable: durable}); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(ctx, "SHOW synchronous_commit").Scan(&got); err != nil || got != want {
			t.Errorf("durable %v: synchronous_commit is %s, want %s (%v)", durable, got, want, err)
		}
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			t.Error(err)
		}
		conn.Release()
	}
}
