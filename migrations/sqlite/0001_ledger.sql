-- The money ledger. Amounts are millisatoshi, times are microseconds since 1970
-- (UTC). The CHECKs are a second line: the program decides, these refuse what
-- must never be. (No IN lists in them: SQLite builds a temporary table for each
-- evaluation, which made an update of an account four times as slow.)

CREATE TABLE meta (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    ledger_id BLOB    NOT NULL CHECK (length(ledger_id) = 16),
    born      INTEGER NOT NULL
) STRICT;

CREATE TABLE key_fingerprints (
    fingerprint BLOB PRIMARY KEY CHECK (length(fingerprint) = 32)
) STRICT, WITHOUT ROWID;

-- last_charge heads a list of the account's charges, linked by charges.prev: the
-- newest are found without an index, which a million accounts would make the
-- costliest part of a settlement.
CREATE TABLE accounts (
    id          BLOB    PRIMARY KEY CHECK (length(id) = 32),
    status      INTEGER NOT NULL DEFAULT 0 CHECK (status BETWEEN 0 AND 2), -- active, frozen, revoked
    available   INTEGER NOT NULL DEFAULT 0 CHECK (available >= 0),
    held        INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    deposited   INTEGER NOT NULL DEFAULT 0 CHECK (deposited >= 0),
    charged     INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0),
    adjusted    INTEGER NOT NULL DEFAULT 0,
    budgets     INTEGER NOT NULL DEFAULT 0 CHECK (budgets >= 0),
    last_charge BLOB    CHECK (length(last_charge) = 16),
    CHECK (available + held = deposited + adjusted - charged)
) STRICT, WITHOUT ROWID;

-- A delegated budget with something spent or held.
CREATE TABLE budgets (
    id        BLOB    PRIMARY KEY CHECK (length(id) = 32),
    account   BLOB    NOT NULL,
    max_spend INTEGER NOT NULL,
    spent     INTEGER NOT NULL CHECK (spent >= 0),
    held      INTEGER NOT NULL CHECK (held >= 0),
    CHECK (spent + held <= max_spend)
) STRICT, WITHOUT ROWID;

-- Open reservations. context, usage: see metering/codec.go.
CREATE TABLE holds (
    id      BLOB    PRIMARY KEY CHECK (length(id) = 16),
    account BLOB    NOT NULL,
    amount  INTEGER NOT NULL CHECK (amount >= 0),
    expires INTEGER NOT NULL,
    context BLOB    NOT NULL,
    usage   BLOB    NOT NULL,
    source  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Ended reservations that cost something or were swept: one per hold.
CREATE TABLE charges (
    hold        BLOB    PRIMARY KEY CHECK (length(hold) = 16),
    account     BLOB    NOT NULL,
    prev        BLOB    CHECK (length(prev) = 16),
    at          INTEGER NOT NULL,
    service     TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    chain       BLOB    CHECK (length(chain) = 32),
    source      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    backend     TEXT    NOT NULL,
    usage       BLOB    NOT NULL,
    clamped     INTEGER NOT NULL CHECK (clamped BETWEEN 0 AND 1),
    delivered   INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    charged     INTEGER NOT NULL CHECK (charged >= 0),
    unbilled    INTEGER NOT NULL CHECK (unbilled >= 0),
    epoch       INTEGER NOT NULL,
    rates       BLOB    NOT NULL,
    provisional INTEGER NOT NULL CHECK (provisional BETWEEN 0 AND 1),
    CHECK (charged <= amount)
) STRICT, WITHOUT ROWID;

-- One per payment hash.
CREATE TABLE deposits (
    hash         BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    account      BLOB    NOT NULL,
    credited     INTEGER NOT NULL CHECK (credited >= 0),
    presented    INTEGER,
    settled      INTEGER,
    node         TEXT    NOT NULL DEFAULT '',
    settle_index INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX deposits_unclaimed ON deposits (settled) WHERE presented IS NULL;
CREATE INDEX deposits_unconfirmed ON deposits (presented) WHERE settled IS NULL;

CREATE TABLE adjustments (
    id      BLOB    PRIMARY KEY CHECK (length(id) = 16),
    account BLOB    NOT NULL,
    delta   INTEGER NOT NULL CHECK (delta <> 0),
    reason  TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Double entry, append only: amount leaves debit and enters credit, so each row
-- sums to zero. A side is an account's id, or the name of one of the ledger's own
-- books: lightning, revenue, adjustments.
CREATE TABLE transfers (
    seq    INTEGER PRIMARY KEY,
    kind   INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 4), -- deposit, charge, reversal, adjustment
    debit  BLOB    NOT NULL,
    credit BLOB    NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    ref    BLOB    NOT NULL, -- payment hash, hold id, adjustment id
    at     INTEGER NOT NULL
) STRICT;

CREATE TRIGGER transfers_no_update BEFORE UPDATE ON transfers
BEGIN SELECT RAISE(ABORT, 'transfers are append only'); END;
CREATE TRIGGER transfers_no_delete BEFORE DELETE ON transfers
BEGIN SELECT RAISE(ABORT, 'transfers are append only'); END;

-- What charges spent on delegated budgets, append only.
CREATE TABLE budget_lines (
    seq    INTEGER PRIMARY KEY,
    budget BLOB    NOT NULL,
    hold   BLOB    NOT NULL,
    amount INTEGER NOT NULL CHECK (amount <> 0),
    at     INTEGER NOT NULL
) STRICT;

CREATE TRIGGER budget_lines_no_update BEFORE UPDATE ON budget_lines
BEGIN SELECT RAISE(ABORT, 'budget_lines are append only'); END;
CREATE TRIGGER budget_lines_no_delete BEFORE DELETE ON budget_lines
BEGIN SELECT RAISE(ABORT, 'budget_lines are append only'); END;

-- Rate limits: two windows of a minute each.
CREATE TABLE rate_windows (
    id       BLOB    PRIMARY KEY CHECK (length(id) = 32),
    minute   INTEGER NOT NULL, -- minutes since 1970
    count    INTEGER NOT NULL,
    previous INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    account BLOB    NOT NULL,
    key     BLOB    NOT NULL CHECK (length(key) = 32),
    body    BLOB    NOT NULL CHECK (length(body) = 32),
    hold    BLOB    NOT NULL CHECK (length(hold) = 16),
    charged INTEGER NOT NULL CHECK (charged BETWEEN 0 AND 1),
    expires INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires);

-- How far each Lightning node's settled invoices were taken in.
CREATE TABLE settle_cursors (
    node         TEXT    PRIMARY KEY,
    settle_index INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE price_epochs (
    id         INTEGER PRIMARY KEY,
    model      TEXT    NOT NULL,
    rates      TEXT    NOT NULL, -- JSON
    multiplier REAL    NOT NULL,
    signal     REAL    NOT NULL,
    bound_by   TEXT    NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX price_epochs_model ON price_epochs (model, id);
