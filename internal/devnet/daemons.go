package devnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// DaemonsDirEnv is the environment variable that names the directory for built daemons. When it is
// not set, they are in the user's cache directory.
const DaemonsDirEnv = "SLUICE_DAEMONS_DIR"

//go:embed daemons/mod.txt
var daemonsMod []byte

//go:embed daemons/sum.txt
var daemonsSum []byte

// daemonsTags are the build tags for lnd. They include the services of lnd's releases that the
// network uses, and lnd's SQL databases.
const daemonsTags = "signrpc walletrpc chainrpc invoicesrpc peersrpc kvdb_sqlite kvdb_postgres"

var daemonPackages = []string{"github.com/lightningnetwork/lnd/cmd/lnd", "github.com/btcsuite/btcd"}

// Daemons returns the paths of btcd and lnd in exactly the pinned versions. The first call builds
// them from their Go modules and says so on out. The build needs the go command, 3 GB of disk and
// about six minutes on two cores. Later calls find them in the user's cache directory, or in
// $SLUICE_DAEMONS_DIR. When several processes call Daemons at the same time, one process builds and
// the others wait.
func Daemons(ctx context.Context, out io.Writer) (btcd, lnd string, err error) {
	root := os.Getenv(DaemonsDirEnv)
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", "", fmt.Errorf("find the cache for the Lightning daemons: %w (set %s)", err, DaemonsDirEnv)
		}
		root = filepath.Join(cache, "sluice")
	}
	dir := filepath.Join(root, "daemons-"+daemonsKey())
	btcd, lnd = filepath.Join(dir, "btcd"+exeSuffix()), filepath.Join(dir, "lnd"+exeSuffix())
	if isFile(btcd) && isFile(lnd) {
		return btcd, lnd, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", "", fmt.Errorf("make the cache for the Lightning daemons: %w", err)
	}
	unlock, err := lock(ctx, dir+".lock", func() {
		fmt.Fprintln(out, "another process is building the Lightning daemons; waiting for it")
	})
	if err != nil {
		return "", "", fmt.Errorf("wait for the build of the Lightning daemons: %w", err)
	}
	defer unlock()
	if isFile(btcd) && isFile(lnd) {
		return btcd, lnd, nil
	}
	if err := buildDaemons(ctx, root, dir, out); err != nil {
		return "", "", fmt.Errorf("build the Lightning daemons: %w", err)
	}
	return btcd, lnd, nil
}

// daemonsKey returns a name for everything that the binaries depend on, so that a change of
// version, tag or toolchain causes a new build.
func daemonsKey() string {
	h := sha256.New()
	for _, part := range [][]byte{
		daemonsMod, daemonsSum, []byte(daemonsTags), []byte(runtime.Version()), []byte(runtime.GOOS + "/" + runtime.GOARCH),
	} {
		fmt.Fprintf(h, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// buildDaemons builds in a temporary folder next to dir and renames that folder to dir, so that dir
// never contains an incomplete build.
func buildDaemons(ctx context.Context, root, dir string, out io.Writer) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return errors.New("the go command is not in PATH; install Go (https://go.dev/dl) and try again: " +
			"the demo and the tests build btcd and lnd from source, once")
	}
	tmp, err := os.MkdirTemp(root, "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	source, bin := filepath.Join(tmp, "source"), filepath.Join(tmp, "bin")
	if err := errors.Join(os.Mkdir(source, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(source, "go.mod"), daemonsMod, 0o644),
		os.WriteFile(filepath.Join(source, "go.sum"), daemonsSum, 0o644),
	); err != nil {
		return err
	}
	fmt.Fprintf(out, "building btcd and lnd from source into %s\n"+
		"  (once; about six minutes on two cores with an empty Go cache, less than one with a warm one)\n", dir)
	start := time.Now()
	stop := tick(15*time.Second, func() {
		fmt.Fprintf(out, "  still building, %s so far\n", time.Since(start).Round(time.Second))
	})
	defer stop()
	args := []string{"build", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", "-tags", daemonsTags, "-o", bin + string(filepath.Separator)}
	cmd := exec.CommandContext(ctx, goCommand, append(args, daemonPackages...)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	cmd.WaitDelay = 5 * time.Second
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("go build: %w\n%s", err, tail(messages.String(), 20))
	}
	// Daemons found no complete build in dir, so anything in dir can be removed.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(bin, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "built btcd and lnd in %s\n", time.Since(start).Round(time.Second))
	return nil
}

// lock takes the lock file at path. When it has to wait longer than a second, it calls waiting. The
// lock ends with unlock or with the process.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		unlock func()
		err    error
	}
	got := make(chan result, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(path).Lock()
		got <- result{unlock, err}
	}()
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	for {
		select {
		case r := <-got:
			return r.unlock, r.err
		case <-patience.C:
			waiting()
		case <-ctx.Done():
			go func() {
				if r := <-got; r.err == nil {
					r.unlock()
				}
			}()
			return nil, ctx.Err()
		}
	}
}

// tick calls fn every interval until the caller calls stop. stop waits for a running fn.
func tick(every time.Duration, fn func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fn()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// tail returns the last lines of s.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
