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

// identity is what a server says about itself. Empty fields are unknown.
type identity struct {
	standby  bool
	started  string // of the server's first process
	system   string // of the cluster: the same on all its servers, another after initdb
	timeline uint64 // raised by each promotion
}

// identities asks a server for its identity. Later ones ask for less, because a
// hosted server may refuse some of it. The name of a WAL file begins with the
// timeline; the control file's own comes after the promotion's checkpoint only.
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

// lineage is the server that the ledger was last seen on.
type lineage struct {
	last       identity
	generation atomic.Uint64 // written under mu
	restarts   atomic.Uint64 // written under mu

	mu  sync.Mutex
	era context.Context // ends with the generation
	end context.CancelFunc
}

// observe notes what a new connection found, and returns its generation. life
// ends all eras.
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
	if sameSystem { // what is known stays known
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

// Generation grows when the ledger is found on another server than before: after
// a failover to a standby (another timeline), or on another cluster (another
// system identifier). This process may then remember writes that the database
// has lost. It is 1 from Open on. The first connection to the new server notices
// the change before the connection is used. Connections of an earlier generation
// are not used any more.
func (d *DB) Generation() uint64 { return d.lineage.generation.Load() }

// Restarts counts how often the same server was found to have been started anew.
// A crash of it keeps what was committed durably, and may lose the last of what
// was not.
func (d *DB) Restarts() uint64 { return d.lineage.restarts.Load() }

// generationKey is where a connection keeps its generation.
const generationKey = "sluice generation"

func generationOf(c *pgconn.PgConn) uint64 {
	g, _ := c.CustomData()[generationKey].(uint64)
	return g
}

// current says whether a connection leads to the server that the ledger is on.
func (d *DB) current(_ context.Context, c *pgx.Conn) (bool, error) {
	return generationOf(c.PgConn()) == d.Generation(), nil
}

// eraOf is a context that ends when the connection's generation does.
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
