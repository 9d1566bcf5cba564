-- What audits remember, and closed periods. Only new tables, and an index on a
-- table of live rows: no statement that moves money waits longer than that takes.

-- What the lines up to a number sum up to, by subject: a byte for its kind
-- (1: account, 2: delegated budget, 3: payment) and its id. Accounts: deposited,
-- charged, adjusted. Budgets: spent. Payments: credited, charged at locked rates.
-- upto counts in transfers, for budgets in budget_lines.
CREATE TABLE audited (
    id   bytea  PRIMARY KEY CHECK (octet_length(id) = 33),
    a    bigint NOT NULL,
    b    bigint NOT NULL,
    c    bigint NOT NULL,
    upto bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- How far audits have come. Lines up to scanned_* are summed up in audited, and
-- the subjects of those up to checked_* were compared with their rows. suspects
-- is what the last audit found wrong, see metering/suspects.go.
CREATE TABLE audit_state (
    one               integer PRIMARY KEY CHECK (one = 1),
    version           bigint  NOT NULL,
    scanned_transfers bigint  NOT NULL,
    scanned_budgets   bigint  NOT NULL,
    checked_transfers bigint  NOT NULL,
    checked_budgets   bigint  NOT NULL,
    at                bigint  NOT NULL, -- end of the last audit that came to one; 0: never
    mismatched        bigint  NOT NULL,
    suspects          bytea   NOT NULL
);
INSERT INTO audit_state VALUES (1, 0, 0, 0, 0, 0, 0, 0, '');

-- Closed periods. body: JSON, see metering.Seal. hash: SHA-256 over the hash of
-- the seal before and the body.
CREATE TABLE seals (
    period bigint PRIMARY KEY CHECK (period > 0),
    body   bytea  NOT NULL,
    hash   bytea  NOT NULL CHECK (octet_length(hash) = 32)
);

-- Sums at the end of a period, as in audited, of each subject with lines in it.
-- Rows of a period that has no seal are what an interrupted sealing left behind.
CREATE TABLE sealed (
    id     bytea  NOT NULL CHECK (octet_length(id) = 33),
    period bigint NOT NULL,
    a      bigint NOT NULL,
    b      bigint NOT NULL,
    c      bigint NOT NULL,
    upto   bigint NOT NULL,
    PRIMARY KEY (id, period)
);

CREATE TRIGGER seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The budgets of an account, for the audit of that account alone.
CREATE INDEX budgets_account ON budgets (account);
