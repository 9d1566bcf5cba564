package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const howToInstallBouncer = "no PgBouncer found: install it so that pgbouncer lies in PATH or in /usr/sbin " +
	"(Debian, Ubuntu: apt-get install pgbouncer; Fedora: dnf install pgbouncer; macOS: brew install pgbouncer)"

// Bouncer is one running PgBouncer before a Server.
type Bouncer struct {
	dir     string
	process *exec.Cmd
	exited  chan struct{}
	output  *output
}

// Bouncer starts a PgBouncer before the server, for one test. settings are lines of the section [pgbouncer], such as
// "pool_mode=session". The test fails when PgBouncer is not installed.
func (s *Server) Bouncer(t testing.TB, settings ...string) *Bouncer {
	t.Helper()
	binary, err := findBouncer()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sluice-bouncer-")
	if err != nil {
		t.Fatal(err)
	}
	b := &Bouncer{dir: dir, output: &output{}, exited: make(chan struct{})}
	t.Cleanup(b.remove)
	ini := filepath.Join(dir, "pgbouncer.ini")
	text := "[databases]\n* = host=" + s.dir + " user=postgres\n" +
		"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = " + dir + "\nauth_type = any\n" +
		strings.Join(settings, "\n") + "\n"
	if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.who != nil {
		if err := os.Chown(dir, int(s.who.Uid), int(s.who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	b.process = exec.Command(binary, ini)
	b.process.Dir = dir
	b.process.Stdout, b.process.Stderr = b.output, b.output
	if err := startTied(b.process, s.who, b.exited); err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	go func() {
		_ = b.process.Wait() // the output says how PgBouncer ended
		close(b.exited)
	}()
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	return b
}

func findBouncer() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	if path := "/usr/sbin/pgbouncer"; executable(path) { // not in every user's PATH
		return path, nil
	}
	return "", errors.New(howToInstallBouncer)
}

// URL turns a URL of the server's database into the URL of the same database through the pooler.
func (b *Bouncer) URL(direct string) string {
	u, err := url.Parse(direct)
	if err != nil {
		panic(err) // the server made this URL itself
	}
	u.RawQuery = url.Values{"host": {b.dir}, "port": {"6432"}, "user": {"postgres"}}.Encode()
	return u.String()
}

func (b *Bouncer) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, b.URL("postgres:///postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-b.exited:
			return fmt.Errorf("PgBouncer ended: %s", b.output)
		case <-ctx.Done():
			return fmt.Errorf("PgBouncer does not answer: %w: %s", err, b.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *Bouncer) remove() {
	if b.process != nil && b.process.Process != nil {
		_ = b.process.Process.Signal(syscall.SIGQUIT) // ends at once; fails when PgBouncer has ended already
		<-b.exited
	}
	os.RemoveAll(b.dir)
}
