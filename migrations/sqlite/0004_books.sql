-- What audits remember, and closed periods.

-- What the lines up to a number sum up to, by subject: a byte for its kind
-- (1: account, 2: delegated budget, 3: payment) and its id. Accounts: deposited,
-- charged, adjusted. Budgets: spent. Payments: credited, charged at locked rates.
-- upto counts in transfers, for budgets in budget_lines.
CREATE TABLE audited (
    id   BLOB    PRIMARY KEY CHECK (length(id) = 33),
    a    INTEGER NOT NULL,
    b    INTEGER NOT NULL,
    c    INTEGER NOT NULL,
    upto INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far audits have come. Lines up to scanned_* are summed up in audited, and
-- the subjects of those up to checked_* were compared with their rows. suspects
-- is what the last audit found wrong, see metering/suspects.go.
CREATE TABLE audit_state (
    one               INTEGER PRIMARY KEY CHECK (one = 1),
    version           INTEGER NOT NULL,
    scanned_transfers INTEGER NOT NULL,
    scanned_budgets   INTEGER NOT NULL,
    checked_transfers INTEGER NOT NULL,
    checked_budgets   INTEGER NOT NULL,
    at                INTEGER NOT NULL, -- end of the last audit that came to one; 0: never
    mismatched        INTEGER NOT NULL,
    suspects          BLOB    NOT NULL
) STRICT;
INSERT INTO audit_state VALUES (1, 0, 0, 0, 0, 0, 0, 0, x'');

-- Closed periods. body: JSON, see metering.Seal. hash: SHA-256 over the hash of
-- the seal before and the body.
CREATE TABLE seals (
    period INTEGER PRIMARY KEY CHECK (period > 0),
    body   BLOB    NOT NULL,
    hash   BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Sums at the end of a period, as in audited, of each subject with lines in it.
-- Rows of a period that has no seal are what an interrupted sealing left behind.
CREATE TABLE sealed (
    id     BLOB    NOT NULL CHECK (length(id) = 33),
    period INTEGER NOT NULL,
    a      INTEGER NOT NULL,
    b      INTEGER NOT NULL,
    c      INTEGER NOT NULL,
    upto   INTEGER NOT NULL,
    PRIMARY KEY (id, period)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER seals_no_update BEFORE UPDATE ON seals
BEGIN SELECT RAISE(ABORT, 'seals are append only'); END;
CREATE TRIGGER seals_no_delete BEFORE DELETE ON seals
BEGIN SELECT RAISE(ABORT, 'seals are append only'); END;

-- The budgets of an account, for the audit of that account alone.
CREATE INDEX budgets_account ON budgets (account);
