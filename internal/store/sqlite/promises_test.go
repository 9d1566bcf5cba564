package sqlite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// TestPromises checks what Promises says about a ledger on this machine's disk, and about worse file systems.
func TestPromises(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	d, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	list, err := d.Promises(ctx)
	sound := err == nil && len(list) >= 2 && strings.HasPrefix(list[0].Setting, "journal_mode=wal")
	if !sound || list[0].Broken || list[1].Broken {
		t.Errorf("%+v, %v", list, err)
	}
	if p := journalPromise("delete"); len(p) != 1 || !p[0].Broken {
		t.Errorf("without a write-ahead log: %+v", p)
	}
	for kind, words := range map[fileKind]string{remote: "two gateways", volatile: "in memory", layered: "container"} {
		if p, known := filePromise("x", kind); !known || !p.Broken || !strings.Contains(p.Means, words) {
			t.Errorf("%d: %+v", kind, p)
		}
	}
	if p, known := filePromise("", local); known {
		t.Errorf("a local disk: %+v", p)
	}
}

// TestPromiseOfMemory checks that the kind of the real file system is found.
func TestPromiseOfMemory(t *testing.T) {
	if name, kind := fileSystem("/dev/shm"); kind != volatile || name != "tmpfs" {
		t.Skipf("/dev/shm is %q here", name)
	}
	p, known := filePromise(fileSystem("/dev/shm"))
	if !known || p.Setting != "file system tmpfs" || !p.Broken {
		t.Errorf("%+v", p)
	}
}

// TestSynchronous checks which setting of synchronous each kind of write uses.
func TestSynchronous(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, durable := range []bool{true, false, true, true, false, false} {
		err := d.write(ctx, durable, func(w *writer) (bool, error) {
			mode, err := schema{c: w.conn}.number("PRAGMA synchronous")
			if want := map[bool]int{true: 2, false: 1}[durable]; err != nil || mode != want { // 2 is FULL, 1 is NORMAL
				t.Errorf("durable %v: synchronous is %d, want %d (%v)", durable, mode, want, err)
			}
			return false, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
