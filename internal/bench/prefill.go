package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // registers the driver "sqlite" of database/sql

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// ledgerSize describes a ledger that is made before the measurement.
type ledgerSize struct {
	Store    string // URL or path
	Accounts int
	Charges  int // charges on record, the same number for each account: a multiple of Accounts
}

// prefill makes an empty ledger and writes accounts and charges into its database. It does this in
// a few statements and not through the ledger, because a million deposits one by one would take
// minutes, and ten million charges a quarter of an hour. An audit finds no fault in the result.
// Each account has a deposit that its owner presented and that the Lightning node settled. The
// deposit's hash equals the account's id. Each charge has its transfer and its place in the
// account's list.
func prefill(ctx context.Context, size ledgerSize) error {
	if size.Charges%size.Accounts != 0 {
		return fmt.Errorf("%d charges cannot be spread evenly over %d accounts", size.Charges, size.Accounts)
	}
	db, err := openStore(ctx, size.Store) // creates the schema
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if isPostgres(size.Store) {
		return prefillPostgres(ctx, size)
	}
	return prefillSQLite(ctx, size)
}

func isPostgres(store string) bool { return strings.HasPrefix(store, "postgres:") }

// accountsOf returns the accounts of a ledger in the order of their ids.
func accountsOf(ctx context.Context, store string) (ids []l402.TokenID, err error) {
	const query = "SELECT id FROM accounts ORDER BY id"
	if isPostgres(store) {
		c, err := pgx.Connect(ctx, store)
		if err != nil {
			return nil, err
		}
		defer c.Close(ctx) // an error does not affect the result
		rows, err := c.Query(ctx, query)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			ids = append(ids, l402.TokenID(rows.RawValues()[0]))
		}
		return ids, rows.Err()
	}
	db, err := sql.Open("sqlite", store)
	if err != nil {
		return nil, err
	}
	defer db.Close() // only read
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id sql.RawBytes
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, l402.TokenID(id))
	}
	return ids, rows.Err()
}

// history holds the values that the prefilled rows share.
type history struct {
	ledgerSize
	each   int64     // number of charges of one account
	cost   l402.Msat // cost of one charge in msat
	first  int64     // ms since 1970 of charge 0; charge i is i ms later
	usage  []byte    // usage of each charge, as the ledger writes it
	rates  []byte    // rates of each charge, as the ledger writes them
	opened int64     // when the deposits were made, in µs since 1970
}

func newHistory(size ledgerSize) (h history, err error) {
	u := settlement.Usage
	if h.cost, err = rates.Cost(u); err != nil {
		return h, err
	}
	h.ledgerSize, h.each = size, int64(size.Charges/size.Accounts)
	h.first = time.Now().UnixMilli() - int64(size.Charges) - time.Minute.Milliseconds()
	h.opened = (h.first - 1) * 1000
	h.usage = storedNumbers(u[pricing.InputTokens], u[pricing.CachedInputTokens], u[pricing.OutputTokens], u[pricing.Calls])
	h.rates = storedNumbers(rates[pricing.InputTokens], rates[pricing.CachedInputTokens], rates[pricing.OutputTokens])
	return h, nil
}

// storedNumbers returns a usage or rates as metering/codec_units.go writes them: the version, then
// the numbers up to the last number that is not zero.
func storedNumbers(list ...int64) []byte {
	b := []byte{1}
	for _, n := range list {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// sqlStep is one statement of a prefill. Its parameters have the names in history.values.
type sqlStep struct{ what, statement string }

// values returns the parameters of all steps, by name.
func (h history) values() map[string]any {
	return map[string]any{"accounts": h.Accounts, "charges": h.Charges, "each": h.each, "deposit": int64(deposit),
		"cost": int64(h.cost), "spent": h.each * int64(h.cost), "held": int64(reserved), "first": h.first, "opened": h.opened,
		"usage": h.usage, "rates": h.rates, "service": serviceName, "model": modelName}
}

// chargeColumns are the columns that are filled for a charge without budgets and locks.
const chargeColumns = `hold, account, prev, at, service, model, source, outcome, backend, usage, clamped, delivered,
	amount, charged, unbilled, epoch, rates, provisional`

// chargeValues are the values of a charge's columns after the column at. They are the same for both
// stores.
const chargeValues = `@service, @model, 'reported', 'complete', 'backend', @usage, false, 500,
	@held, @cost, 0, 1, @rates, false`

// sqliteHold is the id of charge i, a UUID of version 7. The ids are in the order of time, like the
// ids that a ledger makes. A ledger's ids have random digits. Here these digits are computed from
// i, so that a charge can name the charge before it.
const sqliteHold = `unhex(format('%%012x7%%03x%%016x', @first + (%[1]s), (%[1]s) & 4095,
	(%[1]s) * 2654435761 & 4611686018427387903 | -9223372036854775808))`

// prefillSQLite writes the rows in the order of their keys, as fast as the file takes them. Nothing
// is synced until the store opens the file again.
func prefillSQLite(ctx context.Context, size ledgerSize) error {
	h, err := newHistory(size)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", size.Store)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	hold := func(i string) string { return fmt.Sprintf(sqliteHold, i) }
	steps := []sqlStep{
		{"prepare", `PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-262144; PRAGMA temp_store=MEMORY;
			CREATE TEMP TABLE owners_of (i INTEGER PRIMARY KEY, id BLOB NOT NULL)`},
		{"owners", `INSERT INTO owners_of (id)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @accounts) SELECT randomblob(32) FROM n`},
		{"accounts", `INSERT INTO accounts (id, available, deposited, charged, last_charge)
			SELECT id, @deposit - @spent, @deposit, @spent,
				CASE WHEN @each > 0 THEN ` + hold("@charges - @accounts + i - 1") + ` END
			FROM owners_of ORDER BY id`},
		{"deposits", `INSERT INTO deposits (hash, account, credited, presented, settled)
			SELECT id, id, @deposit, @opened, @opened FROM accounts ORDER BY id`},
		{"deposits' transfers", `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
			SELECT 1, CAST('lightning' AS BLOB), id, @deposit, id, @opened FROM owners_of`},
	}
	if size.Charges > 0 {
		const all = ` FROM (WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < @charges)
			SELECT i FROM n) AS c CROSS JOIN owners_of o ON o.i = c.i % @accounts + 1`
		steps = append(steps,
			sqlStep{"charges", `INSERT INTO charges (` + chargeColumns + `) SELECT ` + hold("c.i") + `, o.id,
				CASE WHEN c.i >= @accounts THEN ` + hold("c.i - @accounts") + ` END, (@first + c.i) * 1000, ` + chargeValues + all},
			sqlStep{"charges' transfers", `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
				SELECT 2, o.id, CAST('revenue' AS BLOB), @cost, ` + hold("c.i") + `, (@first + c.i) * 1000` + all})
	}
	for _, s := range steps {
		var args []any
		for name, v := range h.values() {
			if strings.Contains(s.statement, "@"+name) {
				args = append(args, sql.Named(name, v))
			}
		}
		if _, err := db.ExecContext(ctx, s.statement, args...); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", s.what, err), db.Close())
		}
	}
	return db.Close()
}

// postgresAccount is the id of account i (from 1). postgresHold is the id of charge i (from 0), as
// in sqliteHold.
const (
	postgresAccount = `sha256(int8send(%[1]s))`
	postgresHold    = `encode(int8send(((@first::bigint + (%[1]s)) << 16) | 28672 | ((%[1]s) & 4095)) ||
		int8send((hashint8extended(%[1]s, 0) & 4611686018427387903) | (1::bigint << 63)), 'hex')`
)

// prefillPostgres writes the rows as prefillSQLite does. It vacuums the tables, so that a later
// vacuum has nothing to do. It writes the charges and their transfers at the same time.
func prefillPostgres(ctx context.Context, size ledgerSize) error {
	h, err := newHistory(size)
	if err != nil {
		return err
	}
	account := func(i string) string { return fmt.Sprintf(postgresAccount, i) }
	hold := func(i string) string { return fmt.Sprintf(postgresHold, i) }
	const owners = ` FROM generate_series(1, @accounts::bigint) AS i`
	const all = ` FROM generate_series(0, @charges::bigint - 1) AS i`
	owner := account("i % @accounts::bigint + 1")
	rows := []sqlStep{
		{"accounts", `INSERT INTO accounts (id, available, deposited, charged, last_charge)
			SELECT ` + account("i") + `, @deposit::bigint - @spent::bigint, @deposit::bigint, @spent::bigint,
				CASE WHEN @each::bigint > 0 THEN ` + hold("@charges::bigint - @accounts::bigint + i - 1") + `::uuid END` +
			owners + ` ORDER BY 1`},
		{"deposits", `INSERT INTO deposits (hash, account, credited, presented, settled)
			SELECT ` + account("i") + `, ` + account("i") + `, @deposit::bigint, @opened::bigint, @opened::bigint` +
			owners + ` ORDER BY 1`},
		{"charges", `INSERT INTO charges (` + chargeColumns + `) SELECT ` + hold("i") + `::uuid, ` + owner + `,
			CASE WHEN i >= @accounts::bigint THEN ` + hold("i - @accounts::bigint") + `::uuid END,
			(@first::bigint + i) * 1000, ` + chargeValues + all},
	}
	lines := []sqlStep{
		{"deposits' transfers", `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
			SELECT 1, 'lightning'::bytea, ` + account("i") + `, @deposit::bigint, ` + account("i") + `, @opened::bigint` +
			owners},
		{"charges' transfers", `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
			SELECT 2, ` + owner + `, 'revenue'::bytea, @cost::bigint, decode(` + hold("i") + `, 'hex'),
			(@first::bigint + i) * 1000` + all},
	}
	done := make(chan error, 1)
	go func() { done <- h.postgres(ctx, lines) }()
	err = h.postgres(ctx, rows)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	return h.postgres(ctx, []sqlStep{{"vacuum", "VACUUM ANALYZE"}, {"checkpoint", "CHECKPOINT"}})
}

// postgres runs steps one after another on a connection of their own.
func (h history) postgres(ctx context.Context, steps []sqlStep) error {
	c, err := pgx.Connect(ctx, h.Store)
	if err != nil {
		return err
	}
	defer c.Close(ctx) // an error does not affect the result
	for _, s := range steps {
		args := []any{}
		if strings.Contains(s.statement, "@") {
			args = append(args, pgx.NamedArgs(h.values()))
		}
		if _, err := c.Exec(ctx, s.statement, args...); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// execute runs one statement on a database server.
func execute(ctx context.Context, url, statement string, args ...any) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx) // an error does not affect the result
	_, err = c.Exec(ctx, statement, args...)
	return err
}
