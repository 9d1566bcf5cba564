package postgres

import (
	"context"
	"fmt"

	"sluice.example/sluice/metering"
)

// facts are the server's settings that decide what can be lost.
type facts struct {
	version, fsync, fullPages, commit, names, level, checksums string
	walDelay                                                   int64 // wal_writer_delay, ms

	mayLook     bool // the role may see the state of standbys
	standbys    int64
	synchronous int64 // of these standbys, how many the commits wait for
}

const readFacts = `
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),
	current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('wal_level'),
	current_setting('data_checksums'), (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_writer_delay'),
	pg_has_role('pg_read_all_stats', 'USAGE'), count(*) FILTER (WHERE state = 'streaming'),
	count(*) FILTER (WHERE sync_state IN ('sync', 'quorum'))
FROM pg_stat_replication`

// Promises reads the server's settings, and says what they mean for the writes that the server has acknowledged to this
// process.
func (d *DB) Promises(ctx context.Context) ([]metering.Promise, error) {
	var f facts
	err := d.pool.QueryRow(ctx, readFacts).Scan(&f.version, &f.fsync, &f.fullPages, &f.commit, &f.names, &f.level,
		&f.checksums, &f.walDelay, &f.mayLook, &f.standbys, &f.synchronous)
	if err != nil {
		return nil, fmt.Errorf("read the settings of PostgreSQL: %w", err)
	}
	return f.promises(), nil
}

func (f facts) promises() []metering.Promise {
	list := []metering.Promise{{Setting: "server_version=" + f.version, Means: fmt.Sprintf("After a crash of PostgreSQL "+
		"reservations of the last %d ms before it may be missing. Their settlements make up for them; "+
		"where the money was spent meanwhile, the rest counts as unbilled.", 3*f.walDelay)}}
	if f.fsync == "off" {
		list = append(list, metering.Promise{Setting: "fsync=off", Broken: true, Means: "A crash of the machine may lose " +
			"any payment and charge, and damage the database beyond repair. Set fsync=on and restart PostgreSQL."})
	}
	if f.fullPages == "off" {
		means := "A crash of the machine may leave pages written by half, and with them wrong balances. "
		if f.checksums == "on" {
			means = "A crash of the machine may leave pages written by half, which the checksums will notice but not mend. "
		}
		list = append(list, metering.Promise{Setting: "full_page_writes=off", Broken: true,
			Means: means + "Set full_page_writes=on, unless the file system never tears a page (ZFS)."})
	}
	if f.fsync != "off" { // with fsync=off, a failover is the smaller danger
		list = append(list, f.failover())
	}
	if f.checksums == "off" {
		list = append(list, metering.Promise{Setting: "data_checksums=off", Means: "PostgreSQL does not notice damage " +
			"on its disk. verify-ledger notices where it changes an amount. " +
			"pg_checksums --enable turns checksums on while the server is stopped."})
	}
	return list
}

// failover says what happens to acknowledged payments when another server takes over.
func (f facts) failover() metering.Promise {
	p := metering.Promise{Setting: "synchronous_commit=" + f.commit + " synchronous_standby_names='" + f.names + "'"}
	const here = "A payment is answered when it is on the disk of this server, so it survives a crash of it. "
	switch {
	case f.names == "" && f.level == "minimal":
		p.Setting = "wal_level=minimal"
		p.Means = here + "The server can have neither a standby nor a continuous backup: " +
			"losing its disk loses what came after the last dump."
	case f.names == "" && f.mayLook && f.standbys == 0:
		p.Means = here + "No standby follows: losing its disk loses what came after the last backup."
	case f.names == "":
		p.Means = here + "No standby is waited for: a failover to one may lose the last payments and charges. " +
			"Set synchronous_standby_names to lose nothing."
	case f.commit == "local":
		p.Broken = true
		p.Means = here + "The standby in synchronous_standby_names is not waited for, " +
			"so a failover may lose the last payments and charges. Set synchronous_commit=on."
	case f.mayLook && f.synchronous == 0:
		p.Broken = true
		p.Means = "No synchronous standby is connected, so each payment and charge waits until one is. " +
			"Start the standby, or take it out of synchronous_standby_names."
	case f.commit == "remote_write":
		p.Means = "A payment is answered when it is on the disk of this server and in the memory of a synchronous standby: " +
			"a failover to that standby loses nothing, unless the standby's machine crashes at the same time."
	default:
		p.Means = "A payment is answered when it is on the disks of this server and of a synchronous standby: " +
			"a failover to that standby loses nothing."
	}
	return p
}
