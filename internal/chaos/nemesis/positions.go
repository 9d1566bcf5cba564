package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// positions remembers how far the primary's log reached when. A commit that was
// answered before a look lies before the position that the look saw. So a
// standby that has this position on record has every commit answered until then.
type positions struct {
	mu      sync.Mutex
	seen    []position
	stopped bool
}

type position struct {
	at  time.Time // before the look
	log uint64
}

// lookEvery bounds what is exempt for no reason.
const lookEvery = 15 * time.Millisecond

// follow looks until it is stopped. It connects again when the server was away.
func (l *positions) follow(url string) {
	var conn *pgx.Conn
	for !l.ended() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(ctx, url)
		}
		if err == nil {
			err = l.look(ctx, conn)
		}
		if err != nil && conn != nil {
			conn.Close(ctx)
			conn = nil
		}
		cancel()
		time.Sleep(lookEvery)
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

func (l *positions) look(ctx context.Context, conn *pgx.Conn) error {
	before := time.Now()
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return err
	}
	at, err := parsePosition(text)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, position{before, at})
	return nil
}

func (l *positions) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

func (l *positions) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
}

// until is the schedule's time until which every answered commit lies before a
// position of the log.
func (l *positions) until(received string, r *recorder) (safe int64, err error) {
	limit, err := parsePosition(received)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.seen {
		if p.log <= limit {
			safe = p.at.Sub(r.began).Microseconds()
		}
	}
	return safe, nil
}

// parsePosition reads PostgreSQL's form: two halves in hex.
func parsePosition(s string) (uint64, error) {
	var high, low uint64
	if _, err := fmt.Sscanf(s, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("position %q in the log: %w", s, err)
	}
	return high<<32 | low, nil
}
