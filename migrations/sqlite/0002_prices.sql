-- Prices that move: quotes locked with a payment, and overrides. (What gateways
-- tell each other about their load stays in memory: there is one.)

-- covered: held and charged at the rates that the payment locked.
ALTER TABLE deposits ADD COLUMN covered INTEGER NOT NULL DEFAULT 0 CHECK (covered >= 0);

-- The payment that locked the rates of a charge.
ALTER TABLE charges ADD COLUMN rate_lock BLOB CHECK (length(rate_lock) = 32);

-- Multipliers that an operator fixed.
CREATE TABLE price_overrides (
    model      TEXT    PRIMARY KEY,
    multiplier REAL    NOT NULL CHECK (multiplier > 0),
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
