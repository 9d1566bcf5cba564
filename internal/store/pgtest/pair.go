package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Template is the files of a server and of a standby that follows it. initdb and pg_basebackup make them once. Pairs
// start from copies, which takes a fraction of the time.
type Template struct{ server *Server }

// PairConfig says how a pair runs.
type PairConfig struct {
	// Primary and Standby are existing, empty folders for all files of each server. Their paths must be short, because
	// unix sockets are in these folders.
	Primary, Standby string
	// Via returns the host:port by which the standby reaches the primary's socket.
	Via func(socket string) (address string, err error)
	// Synchronous makes the primary answer a commit only after the standby has it on its disk.
	Synchronous bool
	// PrimaryEnv and StandbyEnv are added to the environment of each server.
	PrimaryEnv, StandbyEnv []string
}

// Pair is a primary and a standby that follows it by streaming replication.
type Pair struct{ Primary, Standby *Server }

// Database is the empty database that each pair has.
const Database = "ledger"

// NewTemplate makes the files in a new folder, which Remove deletes.
func NewTemplate() (*Template, error) {
	s, err := launch("-c", "wal_level=replica")
	if err != nil {
		return nil, err
	}
	t := &Template{server: s}
	if err := t.fill(); err != nil {
		t.Remove()
		return nil, err
	}
	return t, nil
}

// fill makes the database and the standby's files, and stops the server.
func (t *Template) fill() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := t.server
	if err := execute(ctx, s.URL("postgres"), "CREATE DATABASE "+Database); err != nil {
		return err
	}
	backup := exec.CommandContext(ctx, filepath.Join(filepath.Dir(s.postgres), "pg_basebackup"), "-h", s.dir, "-U",
		"postgres",
		"-D", filepath.Join(s.dir, "standby"), "-X", "stream", "-c", "fast", "--no-sync", "-R")
	backup.Dir = s.dir
	backup.SysProcAttr = &syscall.SysProcAttr{Credential: s.who}
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	s.Stop()
	return nil
}

// Remove deletes the files.
func (t *Template) Remove() { t.server.remove() }

// Pair starts a pair on copies of the files. Pair.Remove ends the pair.
func (t *Template) Pair(c PairConfig) (*Pair, error) {
	p := &Pair{}
	var err error
	if p.Primary, err = t.copy("data", c.Primary); err != nil {
		return nil, err
	}
	if p.Standby, err = t.copy("standby", c.Standby); err != nil {
		return nil, err
	}
	p.Primary.env, p.Standby.env = c.PrimaryEnv, c.StandbyEnv
	small := []string{"-c", "wal_level=replica", "-c", "shared_buffers=32MB", "-c", "max_connections=200", "-c",
		"wal_keep_size=64MB",
		"-c", "max_wal_size=128MB", "-c", "wal_sender_timeout=0", "-c", "wal_receiver_timeout=0"}
	p.Primary.settings = small
	if c.Synchronous {
		p.Primary.settings = append(small[:len(small):len(small)], "-c", "synchronous_standby_names=standby")
	}
	address, err := c.Via(p.Primary.Socket())
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	follow := fmt.Sprintf("host=%s port=%s user=postgres application_name=standby sslmode=disable", host, port)
	p.Standby.settings = append(small[:len(small):len(small)], "-c", "primary_conninfo="+follow, "-c",
		"wal_retrieve_retry_interval=100ms",
		"-c", "hot_standby=on")
	if err := errors.Join(p.Primary.Start(), p.Standby.Start()); err != nil {
		p.Remove()
		return nil, err
	}
	return p, p.streaming()
}

// copy makes a server on a copy of one half of the template: "data" or "standby".
func (t *Template) copy(half, dir string) (*Server, error) {
	s := &Server{dir: dir, postgres: t.server.postgres, who: t.server.who}
	if s.who != nil {
		if err := os.Chown(dir, int(s.who.Uid), int(s.who.Gid)); err != nil {
			return nil, err
		}
	}
	out, err := exec.Command("cp", "-a", filepath.Join(t.server.dir, half), s.data()).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("copy the files of a server: %w: %s", err, out)
	}
	return s, nil
}

// streaming waits until the standby follows the primary.
func (p *Pair) streaming() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		var n int
		err := query(ctx, p.Primary.URL("postgres"), "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &n)
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the standby does not follow: %w: %s", errors.Join(err, ctx.Err()), p.Standby.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Promote waits until the primary has ended, and makes the standby a primary. received is the position in the
// write-ahead log up to which the standby has what the primary wrote.
func (p *Pair) Promote(ctx context.Context) (received string, err error) {
	<-p.Primary.Ended()
	url := p.Standby.URL("postgres")
	for receivers := 1; receivers > 0; { // the receiver writes all that it has before it ends
		if err := query(ctx, url, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'",
			&receivers); err != nil {
			return "", fmt.Errorf("promote: %w", err)
		}
	}
	if err := query(ctx, url, "SELECT pg_last_wal_receive_lsn()::text", &received); err != nil {
		return "", fmt.Errorf("promote: %w", err)
	}
	return received, promote(ctx, url)
}

// promote makes a standby the primary, and returns once it is the primary. Recovery may cancel any statement on a
// standby, so promote tries again, for 50 seconds at most.
func promote(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Second)
	defer cancel()
	for {
		var recovers, done bool
		err := query(ctx, url, "SELECT pg_is_in_recovery()", &recovers)
		if err == nil && !recovers {
			return nil
		}
		if err == nil {
			err = query(ctx, url, "SELECT pg_promote(false)", &done)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("promote: %w", errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Remove ends both servers and deletes their files.
func (p *Pair) Remove() {
	for _, s := range []*Server{p.Primary, p.Standby} {
		if s.exited != nil {
			s.remove()
		}
	}
}

// Exec runs one statement on the server, for at most two seconds.
func (s *Server) Exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return execute(ctx, s.URL("postgres"), sql)
}

func execute(ctx context.Context, url, sql string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, sql)
	return errors.Join(err, c.Close(ctx))
}

func query(ctx context.Context, url, sql string, into any) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(c.QueryRow(ctx, sql).Scan(into), c.Close(ctx))
}
