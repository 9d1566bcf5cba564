package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
)

// When another program has the file locked, SQLite waits for busy_timeout in each attempt at a step. Migrate then
// pauses and tries the step again. The pauses double up to pauseMax.
const (
	pauseMin, pauseMax = 100 * time.Millisecond, 5 * time.Second
	tellEvery          = 10 * time.Second
)

// schema is a connection as a target of migrations. The version is in the file's header (user_version), which is part
// of the transaction.
type schema struct {
	c   *conn
	log *slog.Logger // nil: nothing is logged
}

// Done returns how far the migrations have run. The header has the version that older programs know as well.
// schema_additions lists the additive migrations, which older programs need not know. schema_steps lists the steps of
// migrations that have not run whole.
func (s schema) Done(_ context.Context, known int) (version, steps int, err error) {
	if version, err = s.number("PRAGMA user_version"); err != nil {
		return 0, 0, err
	}
	additions, err := s.number("SELECT count(*) FROM sqlite_schema WHERE name = 'schema_additions'")
	for whole := additions; err == nil && whole > 0 && version < known; version += whole {
		whole, err = s.number(fmt.Sprintf("SELECT count(*) FROM schema_additions WHERE version = %d AND step = steps", version+1))
	}
	made, there := s.number("SELECT count(*) FROM sqlite_schema WHERE name = 'schema_steps'")
	if err = errors.Join(err, there); err != nil {
		return 0, 0, err
	}
	if additions > 0 && version < known {
		steps, err = s.number(fmt.Sprintf("SELECT count(*) FROM schema_additions WHERE version = %d", version+1))
	}
	if made == 0 || err != nil {
		return version, steps, err
	}
	begun, err := s.number(fmt.Sprintf("SELECT count(*) FROM schema_steps WHERE version = %d", version+1))
	ahead, last := s.number("SELECT coalesce(max(version), 0) FROM schema_steps")
	if ahead > known+1 { // a migration began that this program does not know, after additive ones
		return ahead, 0, errors.Join(err, last)
	}
	return version, steps + begun, errors.Join(err, last)
}

func (s schema) number(sql string) (int, error) {
	q, err := s.c.prepare(sql)
	if err != nil {
		return 0, err
	}
	if _, err := q.step(); err != nil {
		return 0, err
	}
	defer q.reset()
	return int(q.colInt(0)), nil
}

// Migrate tries the step until the step gets the lock of the file.
func (s schema) Migrate(ctx context.Context, step migrations.Step) error {
	sql := "BEGIN IMMEDIATE;\n" + step.SQL + "\n;"
	switch {
	case step.Additive:
		sql += fmt.Sprintf(`CREATE TABLE IF NOT EXISTS schema_additions (
			version INTEGER, step INTEGER, steps INTEGER NOT NULL, PRIMARY KEY (version, step)) STRICT, WITHOUT ROWID;
			INSERT INTO schema_additions (version, step, steps) VALUES (%d, %d, %d);`, step.Version, step.Number, step.Of)
	case step.Last():
		sql += fmt.Sprintf("PRAGMA user_version=%d;", step.Version)
	default:
		sql += fmt.Sprintf(`CREATE TABLE IF NOT EXISTS schema_steps (
			version INTEGER, step INTEGER, PRIMARY KEY (version, step)) STRICT, WITHOUT ROWID;
			INSERT INTO schema_steps (version, step) VALUES (%d, %d);`, step.Version, step.Number)
		// After additive migrations: older programs must refuse the schema from here on.
		sql += fmt.Sprintf("PRAGMA user_version=%d;", step.Version-1)
	}
	pause, told := backoff.New(pauseMin, pauseMax), time.Time{}
	for {
		err := s.c.script(sql + "COMMIT")
		if err == nil {
			return nil
		}
		_ = s.c.script("ROLLBACK") // fails when BEGIN failed already
		if !errors.Is(err, metering.ErrConflict) {
			return err
		}
		if s.log != nil && time.Since(told) >= tellEvery {
			s.log.Warn("a migration waits for another program that has the database locked", "step", step.String())
			told = time.Now()
		}
		if stopped := pause.Wait(ctx); stopped != nil {
			return fmt.Errorf("%w: %w", stopped, err)
		}
	}
}
