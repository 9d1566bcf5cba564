package postgres

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/metering"
)

// clockLimit is for how long this process computes the server's clock from its own clock and the server's last answer.
// The server's clock may step in that time.
const clockLimit = time.Second

// recent is what this process remembers from its last batches: the rows that it wrote, and the server's clock. It is
// valid only on the connection on which it was learnt. A server that was restarted after a crash, or another server in
// its place, may lack the last writes, and may give their transaction ids to other transactions. No connection survives
// such a restart. Safe for concurrent use.
type recent struct {
	rows metering.Memory

	mu    sync.Mutex
	conn  *pgx.Conn
	clock int64 // the server's clock in µs since 1970, at the moment read; 0: unknown
	read  time.Time
}

func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn, r.clock = nil, 0
	r.rows.Forget()
}

// fill gives a batch the remembered rows. It first forgets the rows that were learnt on another connection.
func (r *recent) fill(c *pgx.Conn, b *metering.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c {
		r.conn, r.clock = c, 0
		r.rows.Forget()
	}
	r.rows.Fill(b)
}

// now returns the server's clock in µs since 1970; 0: unknown.
func (r *recent) now() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed := time.Since(r.read)
	if r.clock == 0 || passed > clockLimit {
		return 0
	}
	return r.clock + passed.Microseconds()
}

// wrote remembers what a batch wrote and when.
func (r *recent) wrote(c *pgx.Conn, b *metering.Batch, w written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == c {
		r.clock, r.read = w.now, time.Now()
		r.rows.Wrote(b, w.version)
	}
}
