package sqlite

import (
	"context"
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"sluice.example/sluice/metering"
)

// writer is the only connection that writes, with its prepared statements.
type writer struct {
	*conn
	full bool // true: synchronous=FULL is set; false: NORMAL

	begin, commit, rollback *stmt

	createAccount, loadAccount, saveAccount              *stmt
	loadBudget, insertBudget, updateBudget, deleteBudget *stmt
	loadHold, insertHold, updateHold, deleteHold         *stmt
	loadCharge, insertCharge, updateCharge               *stmt
	loadDeposit, saveDeposit                             *stmt
	loadRate, saveRate, loadKey, saveKey, deleteKey      *stmt
	loadAdjustment, insertAdjustment, loadCursor         *stmt
	saveCursor, insertTransfer, insertBudgetLine         *stmt
	loadFingerprints, insertFingerprint, insertEpoch     *stmt
	saveOverride, deleteOverride, cleanKeys, cleanRates  *stmt
	beat, progress, fence, fenced, cleanOwners           *stmt
	cleanEpochs                                          *stmt
	saveTally, saveSealed, saveAuditState, insertSeal    *stmt
}

const chargeColumns = `hold, account, prev, at, service, model, chain, source, outcome, backend, usage,
clamped, delivered, amount, charged, unbilled, epoch, rates, provisional, rate_lock, chain_prev, checksum`

const budgetColumns = `account, max_spend, spent, held, parent, children, valid_until, last_charge, checksum`

const depositColumns = `hash, account, credited, presented, settled, node, settle_index, covered, doubted, owed`

// openWriter opens the connection that writes. The caller has locked d.mu.
func (d *DB) openWriter() error {
	c, err := openConn(d.path, lib.SQLITE_OPEN_READWRITE)
	if err != nil {
		return err
	}
	w := &writer{conn: c}
	if err := errors.Join(c.script(writerPragmas), w.prepareAll()); err != nil {
		c.close()
		return err
	}
	w.full = true // FULL is SQLite's default
	d.w = w
	return nil
}

func (w *writer) prepareAll() error {
	var failed error
	for _, s := range []struct {
		into **stmt
		sql  string
	}{
		{&w.begin, `BEGIN IMMEDIATE`},
		{&w.commit, `COMMIT`},
		{&w.rollback, `ROLLBACK`},
		{&w.createAccount, `INSERT OR IGNORE INTO accounts (id) VALUES (?)`},
		{&w.loadAccount, `SELECT status, available, held, deposited, charged, adjusted, budgets, last_charge FROM accounts WHERE id = ?`},
		{&w.saveAccount, `UPDATE accounts SET status = ?, available = ?, held = ?, deposited = ?, charged = ?, adjusted = ?, budgets = ?, last_charge = ? WHERE id = ?`},
		{&w.loadBudget, `SELECT ` + budgetColumns + ` FROM budgets WHERE id = ?`},
		{&w.insertBudget, `INSERT INTO budgets (` + budgetColumns + `, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		// The statement leaves out the account, which never changes, because SQLite would write the account's index
		// again.
		{&w.updateBudget, `UPDATE budgets SET spent = ?, held = ?, children = ?, last_charge = ? WHERE id = ?`},
		{&w.deleteBudget, `DELETE FROM budgets WHERE id = ?`},
		{&w.loadHold, `SELECT account, amount, owner, context, usage, source FROM holds WHERE id = ?`},
		{&w.insertHold, `INSERT INTO holds (` + holdColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?)`},
		{&w.updateHold, `UPDATE holds SET amount = ?, owner = ? WHERE id = ?`},
		{&w.deleteHold, `DELETE FROM holds WHERE id = ?`},
		{&w.loadCharge, `SELECT ` + chargeColumns + ` FROM charges WHERE hold = ?`},
		{&w.insertCharge, `INSERT INTO charges (` + chargeColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.updateCharge, `UPDATE charges SET at = ?, source = ?, outcome = ?, backend = ?, usage = ?, clamped = ?, delivered = ?, charged = ?, unbilled = ?, provisional = ? WHERE hold = ?`},
		{&w.loadDeposit, `SELECT ` + depositColumns + ` FROM deposits WHERE hash = ?`},
		{&w.saveDeposit, `INSERT OR REPLACE INTO deposits (` + depositColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.loadRate, `SELECT minute, count, previous FROM rate_windows WHERE id = ?`},
		{&w.saveRate, `INSERT OR REPLACE INTO rate_windows (id, minute, count, previous) VALUES (?, ?, ?, ?)`},
		{&w.loadKey, `SELECT body, hold, charged, expires FROM idempotency_keys WHERE account = ? AND key = ?`},
		{&w.saveKey, `INSERT OR REPLACE INTO idempotency_keys (account, key, body, hold, charged, expires) VALUES (?, ?, ?, ?, ?, ?)`},
		{&w.deleteKey, `DELETE FROM idempotency_keys WHERE account = ? AND key = ?`},
		{&w.loadAdjustment, `SELECT account, delta, reason, at FROM adjustments WHERE id = ?`},
		{&w.insertAdjustment, `INSERT INTO adjustments (id, account, delta, reason, at) VALUES (?, ?, ?, ?, ?)`},
		{&w.loadCursor, `SELECT settle_index, hash, since FROM settle_cursors WHERE node = ?`},
		{&w.saveCursor, `INSERT OR REPLACE INTO settle_cursors (node, settle_index, hash, since) VALUES (?, ?, ?, ?)`},
		{&w.insertTransfer, `INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (?, ?, ?, ?, ?, ?)`},
		{&w.insertBudgetLine, `INSERT INTO budget_lines (budget, hold, amount, at) VALUES (?, ?, ?, ?)`},
		{&w.loadFingerprints, `SELECT fingerprint FROM key_fingerprints`},
		{&w.insertFingerprint, `INSERT INTO key_fingerprints (fingerprint) VALUES (?)`},
		{&w.insertEpoch, `INSERT INTO price_epochs (id, model, rates, multiplier, signal, bound_by, at)
			SELECT coalesce(max(id), 0) + 1, ?, ?, ?, ?, ?, ? FROM price_epochs RETURNING id`},
		{&w.saveOverride, `INSERT OR REPLACE INTO price_overrides (model, multiplier, at) VALUES (?, ?, ?)`},
		{&w.deleteOverride, `DELETE FROM price_overrides WHERE model = ?`},
		{&w.saveTally, `INSERT INTO audited (id, a, b, c, upto) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b, c = excluded.c, upto = excluded.upto WHERE upto < excluded.upto`},
		{&w.saveSealed, `INSERT OR REPLACE INTO sealed (id, a, b, c, upto, period) VALUES (?, ?, ?, ?, ?, ?)`},
		{&w.saveAuditState, `UPDATE audit_state SET version = version + 1, scanned_transfers = ?, scanned_budgets = ?,
			checked_transfers = ?, checked_budgets = ?, at = ?, mismatched = ?, suspects = ? WHERE version = ? RETURNING 1`},
		{&w.insertSeal, `INSERT INTO seals (period, body, hash) VALUES (?, ?, ?)`},
		{&w.cleanKeys, `DELETE FROM idempotency_keys WHERE (account, key) IN (SELECT account, key FROM idempotency_keys WHERE expires < ? LIMIT ?) RETURNING 1`},
		{&w.cleanRates, `DELETE FROM rate_windows WHERE id IN (SELECT id FROM rate_windows WHERE minute < ? LIMIT ?) RETURNING 1`},
		{&w.beat, `INSERT INTO owners (id, beat) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET beat = max(beat + 1, excluded.beat) WHERE fenced IS NULL RETURNING beat`},
		{&w.progress, `UPDATE holds SET usage = ?, source = ? WHERE id = ? AND owner = ? RETURNING 1`},
		{&w.fence, `UPDATE owners SET fenced = ? WHERE id = ? AND beat = ? AND fenced IS NULL`},
		{&w.fenced, `SELECT 1 FROM owners WHERE id = ? AND fenced IS NOT NULL`},
		{&w.cleanOwners, `DELETE FROM owners WHERE id IN (SELECT id FROM owners o WHERE fenced < ? AND NOT EXISTS (SELECT 1 FROM holds WHERE owner = o.id) LIMIT ?) RETURNING 1`},
		// The statement looks only at the oldest epochs, so that it stays cheap when it deletes nothing.
		{&w.cleanEpochs, `DELETE FROM price_epochs WHERE id IN (SELECT e.id FROM (SELECT id, model FROM price_epochs ORDER BY id LIMIT ?2) e
			WHERE (SELECT at FROM price_epochs WHERE model = e.model AND id > e.id ORDER BY id LIMIT 1) < ?1) RETURNING 1`},
	} {
		var err error
		if *s.into, err = w.prepare(s.sql); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// Apply runs one batch. It never leaves an account out, because no other process writes.
func (d *DB) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	return d.write(ctx, b.Likely, func(w *writer) (bool, error) {
		if err := w.load(b); err != nil {
			return false, err
		}
		b.Now = d.now()
		decide()
		if !b.Changed() {
			return false, nil
		}
		if b.Durable && !w.full {
			// SQLite refuses to change synchronous within a transaction. So Apply ends this transaction and begins
			// another. The loaded rows stay true between the two transactions, because d.mu is locked.
			if err := errors.Join(w.rollback.run(), w.sync(true), w.begin.run()); err != nil {
				return false, err
			}
		}
		return true, w.save(b)
	})
}

// now returns the time in µs since 1970. It never steps back. The caller has locked d.mu.
func (d *DB) now() int64 {
	d.last = max(d.last, d.clock().UnixMicro())
	return d.last
}

// write runs fn in one transaction. It commits the transaction if fn returns true and no error, and otherwise rolls it
// back.
func (d *DB) write(ctx context.Context, durable bool, fn func(*writer) (commit bool, err error)) error {
	if d.lock == nil {
		return errReadOnly
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
		return errors.New("sqlite: closed")
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.w == nil {
		if err := d.openWriter(); err != nil {
			return err
		}
	}
	if err := d.w.sync(durable); err != nil {
		return d.broken(err)
	}
	if err := d.w.begin.run(); err != nil {
		return d.broken(fmt.Errorf("begin: %w", err))
	}
	commit, err := fn(d.w)
	if err == nil && commit {
		if err = d.w.commit.run(); err == nil {
			return nil
		}
	}
	if undo := d.w.rollback.run(); undo != nil && err == nil {
		err = fmt.Errorf("roll back: %w", undo)
	}
	if err != nil {
		return d.broken(err)
	}
	return nil
}

// broken closes the connection after an error that may have left it in any state. The next write opens it again. broken
// keeps the connection after ErrConflict and ErrRejected.
func (d *DB) broken(err error) error {
	if errors.Is(err, metering.ErrConflict) || errors.Is(err, metering.ErrRejected) {
		return err
	}
	d.w.close()
	d.w = nil
	return err
}

// sync sets whether the next commit waits for the disk. SQLite refuses to change this within a transaction.
func (w *writer) sync(full bool) error {
	if full == w.full {
		return nil
	}
	pragma := "PRAGMA synchronous=NORMAL"
	if full {
		pragma = "PRAGMA synchronous=FULL"
	}
	if err := w.script(pragma); err != nil {
		return err
	}
	w.full = full
	return nil
}
