-- The money ledger. Amounts are millisatoshi, times are microseconds since 1970
-- (UTC). The CHECKs are a second line: the program decides, these refuse what
-- must never be.

CREATE TABLE meta (
    one       integer PRIMARY KEY CHECK (one = 1),
    ledger_id bytea   NOT NULL CHECK (octet_length(ledger_id) = 16),
    born      bigint  NOT NULL
);

CREATE TABLE key_fingerprints (
    fingerprint bytea PRIMARY KEY CHECK (octet_length(fingerprint) = 32)
);

-- last_charge heads a list of the account's charges, linked by charges.prev: the
-- newest are found without an index, which a million accounts would make the
-- costliest part of a settlement. fillfactor leaves room in each page, so that an
-- update stays in it and touches no index.
CREATE TABLE accounts (
    id          bytea    PRIMARY KEY CHECK (octet_length(id) = 32),
    status      smallint NOT NULL DEFAULT 0 CHECK (status IN (0, 1, 2)), -- active, frozen, revoked
    available   bigint   NOT NULL DEFAULT 0 CHECK (available >= 0),
    held        bigint   NOT NULL DEFAULT 0 CHECK (held >= 0),
    deposited   bigint   NOT NULL DEFAULT 0 CHECK (deposited >= 0),
    charged     bigint   NOT NULL DEFAULT 0 CHECK (charged >= 0),
    adjusted    bigint   NOT NULL DEFAULT 0,
    budgets     bigint   NOT NULL DEFAULT 0 CHECK (budgets >= 0),
    last_charge uuid,
    CHECK (available + held = deposited + adjusted - charged)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- A delegated budget with something spent or held.
CREATE TABLE budgets (
    id        bytea  PRIMARY KEY CHECK (octet_length(id) = 32),
    account   bytea  NOT NULL,
    max_spend bigint NOT NULL,
    spent     bigint NOT NULL CHECK (spent >= 0),
    held      bigint NOT NULL CHECK (held >= 0),
    CHECK (spent + held <= max_spend)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Open reservations. context, usage: see metering/codec.go. Rows live for
-- seconds: vacuum by count, not by share of a table that is nearly empty.
CREATE TABLE holds (
    id      uuid   PRIMARY KEY,
    account bytea  NOT NULL,
    amount  bigint NOT NULL CHECK (amount >= 0),
    expires bigint NOT NULL,
    context bytea  NOT NULL,
    usage   bytea  NOT NULL,
    source  text   NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- Ended reservations that cost something or were swept: one per hold.
CREATE TABLE charges (
    hold        uuid    PRIMARY KEY,
    account     bytea   NOT NULL,
    prev        uuid,
    at          bigint  NOT NULL,
    service     text    NOT NULL,
    model       text    NOT NULL,
    chain       bytea   CHECK (octet_length(chain) = 32),
    source      text    NOT NULL,
    outcome     text    NOT NULL,
    backend     text    NOT NULL,
    usage       bytea   NOT NULL,
    clamped     boolean NOT NULL,
    delivered   bigint  NOT NULL,
    amount      bigint  NOT NULL,
    charged     bigint  NOT NULL CHECK (charged >= 0),
    unbilled    bigint  NOT NULL CHECK (unbilled >= 0),
    epoch       bigint  NOT NULL,
    rates       bytea   NOT NULL,
    provisional boolean NOT NULL,
    CHECK (charged <= amount)
);

-- One per payment hash.
CREATE TABLE deposits (
    hash         bytea  PRIMARY KEY CHECK (octet_length(hash) = 32),
    account      bytea  NOT NULL,
    credited     bigint NOT NULL CHECK (credited >= 0),
    presented    bigint,
    settled      bigint,
    node         text   NOT NULL DEFAULT '',
    settle_index bigint NOT NULL DEFAULT 0
);

CREATE INDEX deposits_unclaimed ON deposits (settled) WHERE presented IS NULL;
CREATE INDEX deposits_unconfirmed ON deposits (presented) WHERE settled IS NULL;

CREATE TABLE adjustments (
    id      uuid   PRIMARY KEY,
    account bytea  NOT NULL,
    delta   bigint NOT NULL CHECK (delta <> 0),
    reason  text   NOT NULL,
    at      bigint NOT NULL
);

-- Double entry, append only: amount leaves debit and enters credit, so each row
-- sums to zero. A side is an account's id, or the name of one of the ledger's own
-- books: lightning, revenue, adjustments.
CREATE TABLE transfers (
    seq    bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind   smallint NOT NULL CHECK (kind IN (1, 2, 3, 4)), -- deposit, charge, reversal, adjustment
    debit  bytea    NOT NULL,
    credit bytea    NOT NULL,
    amount bigint   NOT NULL CHECK (amount > 0),
    ref    bytea    NOT NULL, -- payment hash, hold id, adjustment id
    at     bigint   NOT NULL
);

-- What charges spent on delegated budgets, append only.
CREATE TABLE budget_lines (
    seq    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget bytea  NOT NULL,
    hold   uuid   NOT NULL,
    amount bigint NOT NULL CHECK (amount <> 0),
    at     bigint NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'check_violation'; END $$;

CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER budget_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Rate limits: two windows of a minute each.
CREATE TABLE rate_windows (
    id       bytea  PRIMARY KEY CHECK (octet_length(id) = 32),
    minute   bigint NOT NULL, -- minutes since 1970
    count    bigint NOT NULL,
    previous bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE idempotency_keys (
    account bytea   NOT NULL,
    key     bytea   NOT NULL CHECK (octet_length(key) = 32),
    body    bytea   NOT NULL CHECK (octet_length(body) = 32),
    hold    uuid    NOT NULL,
    charged boolean NOT NULL,
    expires bigint  NOT NULL,
    PRIMARY KEY (account, key)
);

CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires);

-- How far each Lightning node's settled invoices were taken in.
CREATE TABLE settle_cursors (
    node         text   PRIMARY KEY,
    settle_index bigint NOT NULL
);

CREATE TABLE price_epochs (
    id         bigint           PRIMARY KEY,
    model      text             NOT NULL,
    rates      jsonb            NOT NULL,
    multiplier double precision NOT NULL,
    signal     double precision NOT NULL,
    bound_by   text             NOT NULL,
    at         bigint           NOT NULL
);

CREATE INDEX price_epochs_model ON price_epochs (model, id);
