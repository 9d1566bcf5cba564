package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/store/pgtest"
)

// sitting is a number of schedules, played a few at a time.
type sitting struct {
	options
	stage  stage
	folder string

	mu     sync.Mutex
	log    io.Writer
	played int
	failed []string
}

// errFindings ends a sitting in which a promise was broken.
var errFindings = errors.New("the ledger broke a promise")

func sit(o options, out io.Writer) (err error) {
	s := &sitting{options: o, folder: filepath.Join(o.folder, time.Now().UTC().Format("20060102-150405"))}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.folder, "seeds.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	s.log = io.MultiWriter(out, log)
	if slices.Contains(o.stores, storePostgres) {
		if s.stage.template, err = pgtest.NewTemplate(); err != nil {
			return err
		}
		defer s.stage.template.Remove()
	}
	if err := disksWork(); err != nil {
		fmt.Fprintf(s.log, "full and slow disks are skipped: %v\n", err)
	} else {
		s.stage.disks = true
	}
	fmt.Fprintf(s.log, "sitting in %s: seeds %d to %d on %s\n", s.folder, o.first, o.first+uint64(o.seeds)-1,
		strings.Join(o.stores, " and "))
	began := time.Now()
	s.all()
	fmt.Fprintf(s.log, "%d schedules in %s, %d with findings\n", s.played, time.Since(began).Round(time.Second),
		len(s.failed))
	if len(s.failed) > 0 {
		return fmt.Errorf("%w: %s", errFindings, strings.Join(s.failed, ", "))
	}
	return nil
}

// all plays every schedule, or ends after those that run when it is interrupted:
// they have disks to unmount. One that cannot be played counts as a finding.
func (s *sitting) all() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	turns := make(chan schedule)
	var players sync.WaitGroup
	for range s.parallel {
		players.Go(func() {
			for one := range turns {
				if err := s.play(one); err != nil {
					s.broke(one, err)
				}
			}
		})
	}
	for i := range s.seeds {
		for _, store := range s.stores {
			select {
			case turns <- draw(s.first+uint64(i), store, s.kinds(store)):
				s.played++
			case <-ctx.Done():
			}
		}
	}
	close(turns)
	players.Wait()
}

// broke notes a schedule that could not be played.
func (s *sitting) broke(one schedule, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf("SEED=%d STORE=%s", one.seed, one.store))
	fmt.Fprintf(s.log, "seed %d %s: could not be played: %v: %s\n", one.seed, one.store, err,
		strings.Join(one.strings(), " "))
}

// play plays one schedule and writes its line.
func (s *sitting) play(one schedule) error {
	began := time.Now()
	dir := filepath.Join(s.folder, fmt.Sprintf("seed-%d-%s", one.seed, one.store))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files, err := folder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(files)
	p, err := newPlay(&s.stage, one, dir, files)
	if err != nil {
		return err
	}
	h, err := p.run()
	for name, text := range p.site.said() {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name+".log"), []byte(text), 0o600))
	}
	if err = errors.Join(err, p.close()); err != nil {
		return err
	}
	found := history.Check(h)
	s.line(p, h, found, time.Since(began))
	if len(found) > 0 {
		return os.WriteFile(filepath.Join(dir, "findings.txt"), []byte(list(found)), 0o600)
	}
	if s.keep {
		return nil
	}
	return os.RemoveAll(dir)
}

// line writes what became of a schedule.
func (s *sitting) line(p *play, h *history.History, found []history.Finding, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	verdict := "ok"
	if len(found) > 0 {
		verdict = fmt.Sprintf("%d FINDINGS", len(found))
		s.failed = append(s.failed, fmt.Sprintf("SEED=%d STORE=%s", p.seed, p.store))
	}
	about := fmt.Sprintf("%.1fs, %d operations, %d charges, %d swept", took.Seconds(), len(h.Ops),
		len(h.Before.Charges), len(h.Sweeps))
	if p.synchronous {
		about += ", synchronous standby"
	}
	fmt.Fprintf(s.log, "seed %d %s: %s (%s) %s\n", p.seed, p.store, verdict, about, strings.Join(p.strings(), " "))
	for _, text := range p.skipped {
		fmt.Fprintf(s.log, "    skipped %s\n", text)
	}
	for _, f := range found {
		fmt.Fprintf(s.log, "    %s\n", f)
	}
}

func list(found []history.Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
