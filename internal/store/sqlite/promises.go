package sqlite

import (
	"context"
	"fmt"
	"path/filepath"

	"sluice.example/sluice/metering"
)

// Promises reads the file's journal mode and the kind of its file system. It says what they mean for the writes that
// were acknowledged to this process.
func (d *DB) Promises(ctx context.Context) ([]metering.Promise, error) {
	var journal string
	err := d.read(ctx, func(r *reader) error {
		return r.query("PRAGMA journal_mode", nil, func(s *stmt) error {
			journal = s.colText(0)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the settings of SQLite: %w", err)
	}
	list := journalPromise(journal)
	if p, known := filePromise(fileSystem(filepath.Dir(d.path))); known {
		list = append(list, p)
	}
	return list, nil
}

func journalPromise(mode string) []metering.Promise {
	if mode != "wal" {
		return []metering.Promise{{Setting: "journal_mode=" + mode, Broken: true,
			Means: "SQLite could not turn on its write-ahead log, so a crash of the machine may damage the database. " +
				"Put the file on a local disk."}}
	}
	return []metering.Promise{
		{Setting: "journal_mode=wal synchronous=FULL", Means: "A payment is answered when it is on the disk, " +
			"so it survives a crash of the machine. Losing the disk loses what came after the last backup."},
		{Setting: "synchronous=NORMAL for reservations", Means: "A crash of the gateway loses no reservation. " +
			"After a power failure the last ones may be missing. Their settlements make up for them; " +
			"where the money was spent meanwhile, the rest counts as unbilled."},
	}
}

// filePromise says what is wrong with a kind of file system. known is false when nothing is wrong, or the kind is
// unknown.
func filePromise(name string, kind fileKind) (p metering.Promise, known bool) {
	p = metering.Promise{Setting: "file system " + name, Broken: true}
	switch kind {
	case remote:
		p.Means = "This file system may honour neither SQLite's locks nor its syncs, so a crash may lose payments and two " +
			"gateways may damage the database. Put the file on a local disk, or use PostgreSQL."
	case volatile:
		p.Means = "This file system lies in memory: a restart of the machine loses the ledger. Put the file on a disk."
	case layered:
		p.Means = "This file system belongs to a container and goes with it, the ledger too. Put the file on a volume."
	default:
		return p, false
	}
	return p, true
}

// fileKind is what a database must know of a file system.
type fileKind int

const (
	local fileKind = iota // on this machine's disk, or unknown
	remote
	volatile
	layered
)
