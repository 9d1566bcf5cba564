package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var errStandby = errors.New("this server is a standby (in recovery), where the ledger cannot be written: " +
	"name the primary, or all servers in one URL (postgres://user@host1,host2/database), of which the gateway takes the primary")

// identity is what a server says about itself. An empty field is unknown.
type identity struct {
	standby  bool
	started  string // when the server's first process started, in seconds since 1970
	system   string // system identifier of the cluster: the same on all its servers, different after initdb
	timeline uint64 // timeline, which each promotion raises
}

// identities are queries for a server's identity. Each query asks for less than the query before, because a hosted
// server may refuse some of it. The timeline is read from the name of the current WAL file, because the control file
// has the new timeline only after the promotion's checkpoint.
var identities = []string{
	identitySelect(timelineNow, `(SELECT system_identifier::text FROM pg_control_system())`),
	identitySelect(timelineNow, `''`),
	identitySelect(`''`, `''`),
}

const timelineNow = `substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`

func identitySelect(timeline, system string) string {
	return `SELECT pg_is_in_recovery()::text, extract(epoch FROM pg_postmaster_start_time())::text,
		CASE WHEN pg_is_in_recovery() THEN '' ELSE ` + timeline + ` END, ` + system
}

func readIdentity(row [][]byte) (id identity, err error) {
	id = identity{standby: string(row[0]) == "true", started: string(row[1]), system: string(row[3])}
	if len(row[2]) > 0 {
		if id.timeline, err = strconv.ParseUint(string(row[2]), 16, 32); err != nil {
			return id, fmt.Errorf("the server's timeline: %w", err)
		}
	}
	return id, nil
}

// lineage is the server on which this process last found the ledger.
type lineage struct {
	last       identity
	generation atomic.Uint64 // written under mu
	restarts   atomic.Uint64 // written under mu

	mu  sync.Mutex
	era context.Context // ends when the generation grows
	end context.CancelFunc
}

// observe notes the identity that a new connection found, and returns the connection's generation. It fails when the
// server was replaced by a server on a later timeline. When life ends, every era ends.
func (l *lineage) observe(life context.Context, id identity) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.last
	sameSystem := id.system == "" || was.system == "" || id.system == was.system
	known := id.timeline != 0 && was.timeline != 0
	switch {
	case was == identity{}, !sameSystem, known && id.timeline > was.timeline:
		if l.end != nil {
			l.end()
		}
		l.era, l.end = context.WithCancel(life)
		l.generation.Add(1)
	case known && id.timeline < was.timeline:
		return 0, fmt.Errorf("this server was replaced: it is on timeline %d, and the ledger was seen on timeline %d: "+
			"stop the server, or make it a standby of its successor (after a restore from a backup restart the gateway)", id.timeline, was.timeline)
	case id.started != was.started:
		l.restarts.Add(1)
	}
	if sameSystem { // a field that was known before remains known
		if id.system == "" {
			id.system = was.system
		}
		if id.timeline == 0 {
			id.timeline = was.timeline
		}
	}
	l.last = id
	return l.generation.Load(), nil
}

// Generation returns a number that grows when this process finds the ledger on another server: after a failover to a
// standby (a later timeline), or on another cluster (another system identifier). This process may then remember writes
// that the database has lost. The number is 1 after Open. The first connection to the new server notices the change
// before the connection is used. Connections of an earlier generation are not used any more.
func (d *DB) Generation() uint64 { return d.lineage.generation.Load() }

// Restarts returns how often this process found that the same server had been restarted. A crash of the server keeps
// the durable commits, and may lose the last commits that were not durable.
func (d *DB) Restarts() uint64 { return d.lineage.restarts.Load() }

// generationKey is the key under which a connection's custom data has its generation.
const generationKey = "sluice generation"

func generationOf(c *pgconn.PgConn) uint64 {
	g, _ := c.CustomData()[generationKey].(uint64)
	return g
}

// current reports whether a connection leads to the server that the ledger is on now.
func (d *DB) current(_ context.Context, c *pgx.Conn) (bool, error) {
	return generationOf(c.PgConn()) == d.Generation(), nil
}

// eraOf returns a context that ends when the connection's generation is no longer the present one.
func (d *DB) eraOf(c *pgx.Conn) context.Context {
	l := &d.lineage
	l.mu.Lock()
	defer l.mu.Unlock()
	if generationOf(c.PgConn()) == l.generation.Load() {
		return l.era
	}
	over, cancel := context.WithCancel(d.life)
	cancel()
	return over
}
