package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/chaos/wire"
	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/internal/store/pgtest"
)

// postgresSite is a primary and a standby on one small disk, and a wire from
// each teller to the one that serves.
type postgresSite struct {
	disk   *disk
	pair   *pgtest.Pair
	wires  []*wire.Wire
	follow *wire.Wire // from the standby to the primary
	clocks [2]string  // files with the offsets of the primary's and the standby's clock; empty: they cannot be faked

	synchronous bool
	log         *positions

	mu       sync.Mutex
	promoted bool
}

// fakeTime finds the library that fakes a process's clock; empty: none.
func fakeTime() string {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the pattern is sound
			return found[0]
		}
	}
	return ""
}

func newPostgresSite(t *pgtest.Template, s *schedule, dir string, disks bool) (_ *postgresSite, err error) {
	site := &postgresSite{synchronous: s.synchronous, log: &positions{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, site.close())
		}
	}()
	at := filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o755); err != nil {
		return nil, err
	}
	if disks {
		if site.disk, err = newDisk(at, filepath.Join(dir, "image"), 448); err != nil {
			return nil, err
		}
		if err := os.Chmod(at, 0o755); err != nil {
			return nil, err
		}
	}
	config := pgtest.PairConfig{Primary: filepath.Join(at, "1"), Standby: filepath.Join(at, "2"),
		Synchronous: s.synchronous}
	if err := errors.Join(os.Mkdir(config.Primary, 0o755), os.Mkdir(config.Standby, 0o755)); err != nil {
		return nil, err
	}
	config.Via = func(socket string) (string, error) {
		site.follow, err = wire.New("unix", socket)
		if err != nil {
			return "", err
		}
		return site.follow.Address, nil
	}
	if library := fakeTime(); library != "" {
		for i, env := range []*[]string{&config.PrimaryEnv, &config.StandbyEnv} {
			site.clocks[i] = filepath.Join(dir, fmt.Sprintf("clock%d", i+1))
			if err := setClock(site.clocks[i], 0); err != nil {
				return nil, err
			}
			*env = []string{"LD_PRELOAD=" + library, "DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1",
				"FAKETIME_TIMESTAMP_FILE=" + site.clocks[i]}
		}
	}
	if site.pair, err = t.Pair(config); err != nil {
		return nil, err
	}
	for range s.replicas {
		w, err := wire.New("unix", site.pair.Primary.Socket())
		if err != nil {
			return nil, err
		}
		site.wires = append(site.wires, w)
	}
	go site.log.follow(site.pair.Primary.URL("postgres"))
	return site, nil
}

// setClock has the processes that read a file be off by some time from now on.
func setClock(file string, offset time.Duration) error {
	next := file + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+f\n", offset.Seconds()), 0o644); err != nil {
		return err
	}
	return os.Rename(next, file)
}

func (s *postgresSite) wire(i int) *wire.Wire { return s.wires[i] }

func (s *postgresSite) tellerArgs(i int) []string {
	u := url.URL{Scheme: "postgres", Host: s.wires[i].Address, Path: "/" + pgtest.Database,
		RawQuery: url.Values{"user": {"postgres"}, "sslmode": {"disable"}}.Encode()}
	return []string{"-postgres", u.String()}
}

func (s *postgresSite) failedOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.promoted
}

// serving is the server that the tellers work on.
func (s *postgresSite) serving() *pgtest.Server {
	if s.failedOver() {
		return s.pair.Standby
	}
	return s.pair.Primary
}

func (s *postgresSite) open(ctx context.Context) (*reader, error) {
	return openPostgres(ctx, s.serving().URL(pgtest.Database))
}

func (s *postgresSite) perform(p *play, f fault) error {
	switch f.kind {
	case faultCrash:
		return s.crash(p, f)
	case faultStall:
		s.stall(p, f)
	case faultFailover:
		return s.failover(p, f)
	case faultLag:
		s.lag(p, f)
	case faultFull:
		return s.full(p, f)
	case faultSlow:
		return s.disk.perform(p, f)
	case faultClock:
		return s.step(p, f.by)
	default:
		return fmt.Errorf("no such fault on PostgreSQL: %s", f.kind)
	}
	return nil
}

// crash is an immediate stop, and a start some time later.
func (s *postgresSite) crash(p *play, f fault) error {
	p.hurry()
	defer p.record.span(history.Database, f.kind)()
	at := p.record.now()
	s.serving().Kill()
	p.wait(f.lasts)
	err := s.serving().Start()
	p.outage(history.Outage{At: at, Back: p.record.now()})
	return err
}

// full fills the disk, and has the server ask for a new file of its log soon, as
// it would after some more load. It ends then, and comes back by itself or not.
func (s *postgresSite) full(p *play, f fault) error {
	at := p.record.now()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for range 6 {
			p.wait(f.lasts / 8)
			_ = s.serving().Exec("SELECT pg_switch_wal()") // it fails once the server has ended
		}
	}()
	err := s.disk.perform(p, f)
	<-asked
	p.outage(history.Outage{At: at, Back: p.record.now()})
	if err != nil {
		return err
	}
	return s.startAgain(p)
}

// startAgain starts what did not survive a full disk. The standby's files lie on
// the same disk, and with a synchronous one nothing goes on without it.
func (s *postgresSite) startAgain(p *play) error {
	if ended(s.serving()) {
		at := p.record.now()
		err := s.serving().Start()
		p.outage(history.Outage{At: at, Back: p.record.now()})
		if err != nil {
			return err
		}
	}
	return s.startStandby()
}

func (s *postgresSite) startStandby() error {
	if s.failedOver() || !ended(s.pair.Standby) {
		return nil
	}
	return s.pair.Standby.Start()
}

func ended(s *pgtest.Server) bool {
	select {
	case <-s.Ended():
		return true
	default:
		return false
	}
}

func (s *postgresSite) stall(p *play, f fault) {
	defer p.record.span(history.Database, f.kind)()
	pid := s.serving().Pid()
	all := []int{pid}
	_ = syscall.Kill(pid, syscall.SIGSTOP) // first, so that it makes no more children
	for _, child := range proc.Children(pid) {
		_ = syscall.Kill(child, syscall.SIGSTOP) // it may have ended
		all = append(all, child)
	}
	p.wait(f.lasts)
	for _, one := range all {
		_ = syscall.Kill(one, syscall.SIGCONT)
	}
}

// lag keeps the standby from following. Commits wait for a synchronous one.
func (s *postgresSite) lag(p *play, f fault) {
	if s.synchronous && !s.failedOver() {
		defer p.record.span(history.Database, f.kind)()
	}
	s.follow.Hang()
	p.wait(f.lasts)
	s.follow.Heal()
}

// failover ends the primary and promotes the standby, which may lack what came
// last. Then the wires lead to it.
func (s *postgresSite) failover(p *play, f fault) error {
	if f.by > 0 {
		if s.synchronous {
			defer p.record.span(history.Database, faultLag)()
		}
		s.follow.Hang() // until the connection is cut, with all that it held back
		p.wait(f.by)
	}
	p.hurry()
	defer p.record.span(history.Database, f.kind)()
	o := history.Outage{At: p.record.now(), Lossy: !s.synchronous}
	s.pair.Primary.Kill()
	s.follow.Cut()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	received, err := s.pair.Promote(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.promoted = true
	s.mu.Unlock()
	p.wait(f.lasts)
	for _, w := range s.wires {
		w.Point("unix", s.pair.Standby.Socket())
	}
	o.Back = p.record.now()
	if o.Lossy {
		if o.Safe, err = s.log.until(received, p.record); err != nil {
			return err
		}
	}
	p.outage(o)
	p.record.note("the standby was promoted at "+received, o)
	return nil
}

// step moves the clock of the server that serves.
func (s *postgresSite) step(p *play, by time.Duration) error {
	file := s.clocks[0]
	if s.failedOver() {
		file = s.clocks[1]
	}
	if file == "" {
		return fmt.Errorf("%w: a faked clock (install libfaketime)", errUnable)
	}
	p.record.note("the database's clock steps by "+by.String(), nil)
	return setClock(file, by)
}

func (s *postgresSite) heal(ctx context.Context) error {
	if err := s.disk.heal(); err != nil {
		return err
	}
	if ended(s.serving()) {
		if err := s.serving().Start(); err != nil {
			return err
		}
	}
	return s.startStandby()
}

func (s *postgresSite) close() error {
	s.log.stop()
	if s.pair != nil {
		s.pair.Remove()
	}
	for _, w := range s.wires {
		w.Close()
	}
	if s.follow != nil {
		s.follow.Close()
	}
	return s.disk.close()
}

func (s *postgresSite) said() map[string]string {
	return map[string]string{"primary": s.pair.Primary.Output(), "standby": s.pair.Standby.Output()}
}
