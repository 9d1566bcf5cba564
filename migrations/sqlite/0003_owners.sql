-- Liveness belongs to an owner, not to each hold's wall clock; budgets end.

-- One row per running gateway, and per one that ran lately. beat is a counter: no
-- clock is involved.
CREATE TABLE owners (
    id     BLOB    PRIMARY KEY CHECK (length(id) = 16),
    beat   INTEGER NOT NULL,
    fenced INTEGER -- when the owner was taken for dead, µs since 1970
) STRICT, WITHOUT ROWID;

-- Holds of the version before have no owner: nobody else serves this file, so they
-- are abandoned.
ALTER TABLE holds DROP COLUMN expires;
ALTER TABLE holds ADD COLUMN owner BLOB CHECK (length(owner) = 16);

-- Where a budget was delegated from (NULL: by the account itself), how many live
-- ones were delegated from it, until when a token may name it (unix seconds; 0: made
-- before there was this column), and the head of the list of its charges.
ALTER TABLE budgets ADD COLUMN parent BLOB;
ALTER TABLE budgets ADD COLUMN children INTEGER NOT NULL DEFAULT 0 CHECK (children >= 0);
ALTER TABLE budgets ADD COLUMN valid_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE budgets ADD COLUMN last_charge BLOB;

-- The charge before through the same innermost budget.
ALTER TABLE charges ADD COLUMN chain_prev BLOB;

-- doubted: taken back because the Lightning node does not know the payment, µs
-- since 1970. owed: of credited, what was spent before it could be taken back.
ALTER TABLE deposits ADD COLUMN doubted INTEGER;
ALTER TABLE deposits ADD COLUMN owed INTEGER NOT NULL DEFAULT 0 CHECK (owed >= 0);

-- The invoice settled at the index: another one there means another history. since:
-- when the node's history last began anew, µs since 1970.
ALTER TABLE settle_cursors ADD COLUMN hash BLOB;
ALTER TABLE settle_cursors ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
