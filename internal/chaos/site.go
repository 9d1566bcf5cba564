package chaos

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/proc"
)

// Site is where systems are started: the built gateway and the launcher of all
// processes.
type Site struct {
	dir      string
	launcher *proc.Launcher
}

// Open builds the gateway (flags go to go build) into a folder of its own.
func Open(flags ...string) (*Site, error) {
	dir, err := os.MkdirTemp("", "sluice-chaos-")
	if err != nil {
		return nil, err
	}
	s := &Site{dir: dir, launcher: proc.NewLauncher()}
	if err := proc.Build(s.program(), flags, "sluice.example/sluice/cmd/gateway"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends what still runs and removes the folder.
func (s *Site) Close() error {
	s.launcher.Close()
	return os.RemoveAll(s.dir)
}

func (s *Site) program() string { return filepath.Join(s.dir, "gateway") }

// Backend is an inference server in this process.
type Backend struct {
	*inference.Server
	URL string
}

// NewBackend serves until the test ends.
func NewBackend(t testing.TB, cfg inference.Config) *Backend {
	t.Helper()
	server, err := inference.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ctx, l) // ends with ctx
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return &Backend{server, "http://" + l.Addr().String()}
}
