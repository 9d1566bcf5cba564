package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/internal/store/pgtest"
)

// childCommand is the first argument of this program as a child process. The further arguments are
// the role, the file for the answer, and the plan in JSON.
const childCommand = "child"

// role is the work of a child process. It carries out a plan and calls tell once with its answer: a
// server tells its address, and a load generator tells its result.
type role func(ctx context.Context, plan []byte, tell func(any) error) error

var roles = map[string]role{
	"backend":  serveBackend,
	"proxy":    serveProxy,
	"gateway":  serveGateway,
	"load":     runLoad,
	"streams":  runStreams,
	"invoices": runInvoices,
	"ledger":   runLedger,
	"clients":  runClients,
	"holders":  runHolders,
	"pairs":    runPairs,
	"audit":    runAudit,
}

func runChild(ctx context.Context, name, out, plan string) error {
	work, ok := roles[name]
	if !ok {
		return fmt.Errorf("there is no role %q", name)
	}
	return work(ctx, []byte(plan), func(answer any) error {
		b, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		if err := os.WriteFile(out+".part", b, 0o600); err != nil {
			return err
		}
		return os.Rename(out+".part", out) // the parent sees the complete file or no file
	})
}

// site is the place of one run: a folder, and the processes started in it.
type site struct {
	dir       string
	self      string // path of this program
	launcher  *proc.Launcher
	running   []*proc.Process
	database  *pgtest.Server    // nil until it is needed
	histories map[string]string // ledgers with charges on record, by kind of store
	count     int               // number of children so far, for the names of their files
}

func newSite(parent string) (*site, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp(parent, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	return &site{dir: dir, self: self, launcher: proc.NewLauncher(), histories: map[string]string{}}, nil
}

// close stops all processes and removes the folder.
func (s *site) close() error {
	var errs []error
	for _, p := range s.running {
		errs = append(errs, p.Stop(childGrace))
	}
	s.launcher.Close()
	if s.database != nil {
		s.database.Remove()
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// childGrace is how long a server may take to stop. A gateway needs time to write its ledger's
// queue.
const childGrace = 15 * time.Second

// path returns the path of a file of the site.
func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// server is a running child process that serves.
type server struct {
	process *proc.Process
	Addr    string `json:"addr"`
	Pprof   string `json:"pprof"` // address of its profiles; "": it serves no profiles
}

func (s *site) stop(p *proc.Process) error {
	for i, q := range s.running {
		if q == p {
			s.running = append(s.running[:i], s.running[i+1:]...)
			break
		}
	}
	return p.Stop(childGrace)
}

// serve starts a server and waits until the server has told its address.
func (s *site) serve(ctx context.Context, roleName string, plan any) (*server, error) {
	srv := new(server)
	var err error
	srv.process, err = s.child(ctx, roleName, plan, time.Minute, srv)
	return srv, err
}

// work starts a child process that does some work, waits for its answer within limit, and stops it.
func (s *site) work(ctx context.Context, roleName string, plan any, limit time.Duration, answer any) error {
	p, err := s.child(ctx, roleName, plan, limit, answer)
	if err != nil {
		return err
	}
	return s.stop(p)
}

// child starts a child process and waits for its answer.
func (s *site) child(ctx context.Context, roleName string, plan any, limit time.Duration, answer any) (*proc.Process, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	s.count++
	out := s.path(roleName + "-" + strconv.Itoa(s.count))
	p, err := s.launcher.Start(proc.Spec{Name: roleName, Path: s.self, Args: []string{childCommand, roleName, out, string(text)}, Log: out + ".log"})
	if err != nil {
		return nil, err
	}
	s.running = append(s.running, p)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := await(ctx, p, out); err != nil {
		return nil, errors.Join(err, s.stop(p))
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return p, json.Unmarshal(b, answer)
}

// await waits for a child's file by polling. A notification would affect the measurement, and a
// look at the file takes about a microsecond.
func await(ctx context.Context, p *proc.Process, out string) error {
	told := func(context.Context) error {
		_, err := os.Stat(out)
		return err
	}
	err := p.Await(ctx, p.Name()+" has told its answer", told)
	if err != nil && !p.Running() && told(ctx) == nil {
		return nil // the child has told its answer and ended just now
	}
	return err
}

// postgres returns the run's PostgreSQL. The first call starts it with the settings of a modest
// production server: durable, 512 MB of shared buffers, checkpoints at the default times.
func (s *site) postgres() (*pgtest.Server, error) {
	if s.database != nil {
		return s.database, nil
	}
	var err error
	s.database, err = pgtest.Launch("-c", "fsync=on", "-c", "full_page_writes=on", "-c", "shared_buffers=512MB")
	return s.database, err
}

// storeKinds are the kinds of databases for a ledger.
var storeKinds = []string{"SQLite", "PostgreSQL"}

// freshLedger makes a ledger with accounts and with charges on record, see prefill.
func (s *site) freshLedger(ctx context.Context, kind, name string, accounts, charges int) (where string, err error) {
	where = s.path(name + ".db")
	if kind == "PostgreSQL" {
		if where, err = s.freshDatabase(ctx, name); err != nil {
			return "", err
		}
	}
	if err := prefill(ctx, ledgerSize{Store: where, Accounts: accounts, Charges: charges}); err != nil {
		return "", fmt.Errorf("prefill %d accounts and %d charges in %s: %w", accounts, charges, kind, err)
	}
	return where, nil
}

// dropLedger removes a ledger, so that no background work on it affects the next measurement.
func (s *site) dropLedger(ctx context.Context, where string) error {
	if isPostgres(where) {
		u, err := url.Parse(where)
		if err != nil {
			return err
		}
		return execute(ctx, s.database.URL("postgres"), "DROP DATABASE "+strings.TrimPrefix(u.Path, "/")+" WITH (FORCE)")
	}
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(where + suffix); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// databaseProcesses returns the processes that work for a store besides the ledger's own process.
func (s *site) databaseProcesses(kind string) []int {
	if kind == "PostgreSQL" {
		return []int{s.database.Pid()}
	}
	return nil
}

// freshDatabase makes an empty database and returns its URL.
func (s *site) freshDatabase(ctx context.Context, name string) (url string, err error) {
	pg, err := s.postgres()
	if err != nil {
		return "", err
	}
	return pg.URL(name), execute(ctx, pg.URL("postgres"), "CREATE DATABASE "+name)
}
