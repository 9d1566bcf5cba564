-- Prices that move: quotes locked with a payment, overrides, and what the
-- gateways tell each other about their load.

-- covered: held and charged at the rates that the payment locked. The row changes
-- with every request under the lock, so its page needs room. (NOT VALID: rows that
-- stand need no look, which would keep everybody out for as long as it takes.)
ALTER TABLE deposits ADD COLUMN covered bigint NOT NULL DEFAULT 0,
    ADD CHECK (covered >= 0) NOT VALID;
ALTER TABLE deposits SET (fillfactor = 85);

-- step
-- The payment that locked the rates of a charge.
ALTER TABLE charges ADD COLUMN rate_lock bytea,
    ADD CHECK (octet_length(rate_lock) = 32) NOT VALID;

-- step
-- Multipliers that an operator fixed.
CREATE TABLE price_overrides (
    model      text             PRIMARY KEY,
    multiplier double precision NOT NULL CHECK (multiplier > 0 AND multiplier < 'infinity'),
    at         bigint           NOT NULL
);

-- What each gateway has to do, model by model. Worth nothing after a few seconds:
-- a crash of the server may empty it.
CREATE UNLOGGED TABLE replica_loads (
    replica text             NOT NULL,
    model   text             NOT NULL,
    running double precision NOT NULL,
    waiting double precision NOT NULL,
    work    double precision NOT NULL, -- msat at base rates, since the gateway started
    at      bigint           NOT NULL,
    PRIMARY KEY (replica, model)
) WITH (fillfactor = 50);
