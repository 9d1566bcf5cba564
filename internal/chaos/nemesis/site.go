package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice.example/sluice/internal/chaos/wire"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/metering"
)

// The stores.
const (
	storePostgres = "postgres"
	storeSQLite   = "sqlite"
)

// site is the database of one schedule with what can be done to it.
type site interface {
	tellerArgs(i int) []string
	wire(i int) *wire.Wire // of a teller to the database; nil where there is none
	// open reads the ledger without a teller, whatever the tellers' connections do.
	open(ctx context.Context) (*reader, error)
	// perform does one fault of the database's lanes from begin to end. An error
	// says that the machine cannot do it.
	perform(p *play, f fault) error
	// heal makes the database whole and waits until it answers.
	heal(ctx context.Context) error
	close() error
	said() map[string]string // what its processes said last, by name
}

// reader is a look at the ledger from outside.
type reader struct {
	*metering.Reader
	close func() error
}

// errUnable says that this machine cannot do a fault.
var errUnable = errors.New("this machine cannot do that")

func newReader(ctx context.Context, s metering.StoreReader, closeStore func() error) (*reader, error) {
	r, err := metering.NewReader(ctx, s)
	if err != nil {
		return nil, errors.Join(err, closeStore())
	}
	return &reader{r, closeStore}, nil
}

func openPostgres(ctx context.Context, url string) (*reader, error) {
	db, err := postgres.OpenReader(ctx, url)
	if err != nil {
		return nil, err
	}
	return newReader(ctx, db, db.Close)
}

// sqliteSite is a file on a small disk.
type sqliteSite struct {
	disk *disk
	path string
}

func newSQLiteSite(dir string, disks bool) (*sqliteSite, error) {
	s := &sqliteSite{}
	at := filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	if disks {
		var err error
		if s.disk, err = newDisk(at, filepath.Join(dir, "image"), 48); err != nil {
			return nil, err
		}
	}
	s.path = filepath.Join(at, "ledger.db")
	return s, nil
}

func (s *sqliteSite) tellerArgs(int) []string { return []string{"-sqlite", s.path} }
func (s *sqliteSite) wire(int) *wire.Wire     { return nil }

func (s *sqliteSite) open(ctx context.Context) (*reader, error) {
	db, err := sqlite.OpenReader(ctx, s.path)
	if err != nil {
		return nil, err
	}
	return newReader(ctx, db, db.Close)
}

func (s *sqliteSite) perform(p *play, f fault) error {
	switch f.kind {
	case faultFull, faultSlow:
		return s.disk.perform(p, f)
	case faultClock:
		return p.replicas[0].step(p, f.by)
	}
	return fmt.Errorf("no such fault on SQLite: %s", f.kind)
}

func (s *sqliteSite) heal(context.Context) error { return s.disk.heal() }
func (s *sqliteSite) close() error               { return s.disk.close() }
func (s *sqliteSite) said() map[string]string    { return nil }
