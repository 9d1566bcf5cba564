package postgres

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/metering"
)

// clockLimit is for how long the server's clock is reckoned on from its last
// answer. It may step meanwhile.
const clockLimit = time.Second

// recent is what this process knows from its last batches: the rows that it wrote,
// and the server's clock. It is worth as much as the connection on which it was
// learned. A server that comes back after a crash, or another one in its place, may
// lack what was written last, and give the numbers of those transactions to others;
// no connection lives through that. Safe for concurrent use.
type recent struct {
	rows metering.Memory

	mu    sync.Mutex
	conn  *pgx.Conn
	clock int64 // µs since 1970, at the moment read; 0: not known
	read  time.Time
}

func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn, r.clock = nil, 0
	r.rows.Forget()
}

// fill gives a batch what is known, if it was learned on this connection.
func (r *recent) fill(c *pgx.Conn, b *metering.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c {
		r.conn, r.clock = c, 0
		r.rows.Forget()
	}
	r.rows.Fill(b)
}

// now is the server's clock; 0: not known.
func (r *recent) now() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed := time.Since(r.read)
	if r.clock == 0 || passed > clockLimit {
		return 0
	}
	return r.clock + passed.Microseconds()
}

// wrote notes what was written and when.
func (r *recent) wrote(c *pgx.Conn, b *metering.Batch, w written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == c {
		r.clock, r.read = w.now, time.Now()
		r.rows.Wrote(b, w.version)
	}
}
