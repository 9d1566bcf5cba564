// Package pgtest runs a real PostgreSQL for tests.
//
//	db, err := postgres.Open(ctx, pgtest.Start(t)) // a fresh, empty database
//
// The server listens on a unix socket in a directory of its own. All tests of the process that run at the same time
// share the server, and it stops when the last of them ends; with Main, all tests of the package share it. With
// TEST_DATABASE_URL set, Start makes a database on that server instead. When there is neither a URL nor an installed
// server, the test fails, because a ledger must be tested on its real store.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// EnvURL names the variable with the URL of a server to use. The URL's user must be allowed to create databases.
const EnvURL = "TEST_DATABASE_URL"

const howToInstall = "no PostgreSQL server found: install PostgreSQL 15 or newer (Debian, Ubuntu: apt-get install postgresql; " +
	"Fedora: dnf install postgresql-server; macOS: brew install postgresql@15) so that initdb and postgres lie in PATH or in " +
	"/usr/lib/postgresql/*/bin, or set " + EnvURL + " to a server whose user may create databases"

// shared is the server of this process while any test uses it.
var shared struct {
	sync.Mutex
	users  int
	kept   bool // beyond its last user, by Main
	server *Server
}

// Start makes a fresh database for one test, and returns its URL. It drops the database when the test ends.
func Start(t testing.TB) string {
	t.Helper()
	if base := os.Getenv(EnvURL); base != "" {
		return create(t, base)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := launch()
		if err != nil {
			t.Fatal(err)
		}
		shared.server = s
	}
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 && !shared.kept {
			shared.server.remove()
			shared.server = nil
		}
	})
	return create(t, shared.server.URL("postgres"))
}

// Main runs the tests of a package, and keeps the shared server from the first test that needs it to the last test. It
// returns the exit code. Without Main, tests that run one after the other each start a server, which takes a second.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	shared.Lock()
	shared.kept = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.remove()
	}
	return code
}

// New starts a server for one test alone, which may stop and kill the server. With durable, the server syncs its writes
// to the disk, as a real server does. Without durable, it does not sync.
func New(t testing.TB, durable bool) *Server {
	t.Helper()
	var settings []string
	if durable {
		settings = []string{"-c", "fsync=on", "-c", "full_page_writes=on"}
	}
	s, err := launch(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

// create makes a database of a random name, and drops it when the test ends.
func create(t testing.TB, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatalf("%s is not a URL", EnvURL)
	}
	var b [8]byte
	rand.Read(b[:])
	name := "sluice_test_" + hex.EncodeToString(b[:])
	command(t, base, "CREATE DATABASE "+name)
	t.Cleanup(func() { command(t, base, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

func command(t testing.TB, base, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, base)
	if err != nil {
		t.Fatalf("connect to the test server: %v", err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Server is one running PostgreSQL.
type Server struct {
	dir      string // folder of all its files
	postgres string // path of the postgres binary
	who      *syscall.Credential
	settings []string
	env      []string // added to this process's environment

	process *exec.Cmd
	exited  chan struct{}
	output  *output
}

// URL returns the URL of a database of this server.
func (s *Server) URL(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {s.dir}, "user": {"postgres"}}.Encode()
}

// Fresh makes an empty database for one test and returns its URL.
func (s *Server) Fresh(t testing.TB) string { return create(t, s.URL("postgres")) }

// Socket returns the path of the unix socket on which the server listens.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// Ended returns a channel that is closed when the server's process has ended.
func (s *Server) Ended() <-chan struct{} { return s.exited }

// Output returns the last 8 KiB of what the server has written since its last start.
func (s *Server) Output() string { return s.output.String() }

// Pid returns the id of the server's process.
func (s *Server) Pid() int { return s.process.Process.Pid }

// Kill ends the server as pg_ctl stop -m immediate does: without a checkpoint.
func (s *Server) Kill() { s.end(syscall.SIGQUIT) }

// Stop shuts the server down in order, and ends its sessions.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(how syscall.Signal) {
	_ = s.process.Process.Signal(how) // fails when the server has ended already
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.process.Process.Kill()
		<-s.exited
	}
}

func (s *Server) remove() {
	s.Kill()
	os.RemoveAll(s.dir)
}

// launch makes a data directory and starts a server on it.
func launch(settings ...string) (*Server, error) {
	initdb, postgres, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, postgres: postgres, settings: settings}
	if err := s.prepare(initdb); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := s.Start(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// find returns the paths of initdb and postgres, of the newest version installed.
func find() (initdb, postgres string, err error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is sound
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range dirs {
		initdb, postgres = filepath.Join(dir, "initdb"), filepath.Join(dir, "postgres")
		if executable(initdb) && executable(postgres) {
			return initdb, postgres, nil
		}
	}
	initdb, first := exec.LookPath("initdb")
	postgres, second := exec.LookPath("postgres")
	if first != nil || second != nil {
		return "", "", errors.New(howToInstall)
	}
	return initdb, postgres, nil
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // 0 for a name that is not a number
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// prepare runs initdb. PostgreSQL refuses to run as root. So when this process runs as root, the user postgres runs
// everything.
func (s *Server) prepare(initdb string) error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres: %w", err)
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2, os.Chown(s.dir, int(uid), int(gid))); err != nil {
			return err
		}
		s.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	cmd := exec.Command(initdb, "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who}
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Start starts the server, also after Kill or Stop, and waits until it accepts connections.
func (s *Server) Start() error {
	args := append([]string{"-D", s.data(), "-c", "unix_socket_directories=" + s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=64MB", "-c", "max_connections=200"}, s.settings...)
	s.process = exec.Command(s.postgres, args...)
	s.process.Dir = s.dir
	s.process.Env = append(os.Environ(), s.env...)
	s.output = &output{}
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.exited = make(chan struct{})
	if err := startTied(s.process, s.who, s.exited); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // the output says how the server ended
		close(exited)
	}(s.process, s.exited)
	return s.ready()
}

func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("PostgreSQL ended: %s", s.output)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w: %s", err, s.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// output keeps the last 8 KiB of what a process writes.
type output struct {
	mu   sync.Mutex
	last []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, p...)
	if n := len(o.last) - 8192; n > 0 {
		o.last = bytes.Clone(o.last[n:])
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.last)
}
