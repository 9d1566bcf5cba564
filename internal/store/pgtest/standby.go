package pgtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Standby starts a server that follows this server by streaming, for one test. name is the standby's application_name,
// which this server's synchronous_standby_names may contain. settings are arguments of postgres.
func (s *Server) Standby(t testing.TB, name string, settings ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		t.Fatal(err)
	}
	standby := &Server{dir: dir, postgres: s.postgres, who: s.who, settings: settings}
	t.Cleanup(func() {
		if standby.process != nil {
			standby.Kill()
		}
		os.RemoveAll(dir)
	})
	if s.who != nil {
		if err := os.Chown(dir, int(s.who.Uid), int(s.who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	copier := filepath.Join(filepath.Dir(s.postgres), "pg_basebackup")
	cmd := exec.Command(copier, "-D", standby.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", "host="+s.dir+" user=postgres application_name="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	return standby
}

// Promote makes a standby the primary, and waits until it is the primary.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	if err := promote(context.Background(), s.URL("postgres")); err != nil {
		t.Fatal(err)
	}
}
