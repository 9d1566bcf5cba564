package main

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // the driver "sqlite" of database/sql

	"sluice/l402"
)

// prefillSQLite writes the accounts in the order of their ids, as fast as the
// file takes them: nothing is synced until the store opens it again.
func prefillSQLite(ctx context.Context, size ledgerSize) ([]l402.TokenID, error) {
	db, err := sql.Open("sqlite", size.Store)
	if err != nil {
		return nil, err
	}
	defer db.Close() // whatever was not written is missed below
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-262144"); err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `INSERT INTO accounts (id, available, deposited)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT randomblob(32) AS id, ?, ? FROM n ORDER BY id`, size.Accounts, int64(deposit), int64(deposit))
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT id FROM accounts")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := make([]l402.TokenID, 0, size.Accounts)
	for rows.Next() {
		var id sql.RawBytes
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, l402.TokenID(id))
	}
	return ids, rows.Err()
}

// prefillPostgres does the same, and leaves the table as a vacuum would find
// nothing to do in it.
func prefillPostgres(ctx context.Context, size ledgerSize) ([]l402.TokenID, error) {
	c, err := pgx.Connect(ctx, size.Store)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx) // nothing depends on how
	_, err = c.Exec(ctx, `INSERT INTO accounts (id, available, deposited)
		SELECT sha256(int8send(i)), $2, $2 FROM generate_series(1, $1::bigint) AS i ORDER BY 1`, size.Accounts, int64(deposit))
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{"VACUUM ANALYZE accounts", "CHECKPOINT"} {
		if _, err := c.Exec(ctx, statement); err != nil {
			return nil, err
		}
	}
	rows, err := c.Query(ctx, "SELECT id FROM accounts")
	if err != nil {
		return nil, err
	}
	ids := make([]l402.TokenID, 0, size.Accounts)
	for rows.Next() {
		ids = append(ids, l402.TokenID(rows.RawValues()[0]))
	}
	return ids, rows.Err()
}

// execute runs one statement on a database server.
func execute(ctx context.Context, url, statement string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx) // nothing depends on how
	_, err = c.Exec(ctx, statement)
	return err
}
