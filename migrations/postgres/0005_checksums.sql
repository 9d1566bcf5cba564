-- additive
-- A checksum over the columns of a row that never change, so that an audit finds a
-- changed amount that no line repeats: the limit of a sub-budget, and what was held
-- for a charge. See metering/checksum.go. NULL: the row is of a version before.
ALTER TABLE budgets ADD COLUMN checksum int;

-- step
ALTER TABLE charges ADD COLUMN checksum int;

-- step
-- Writes one batch of a gateway: see metering.Store.Apply. The batch comes whole,
-- as one statement, so that no lock is held while anybody waits for a gateway.
-- sluice_apply_3 goes on for gateways of the version before.
--
-- a_*: the accounts of the batch, each with the version (xmin) that was loaded; NULL:
-- the account is to be made. Everything else names its account by its place in a_id
-- (from 1), and is written only if that account could be taken. The place is negative
-- for a charge that replaces one on record. A budget without a limit and a key
-- without an expiry are to go. c_flags is 1 for a clamped usage, 2 for a provisional
-- charge, 3 for both. A table without rows comes as NULL. The result says what became
-- of each account: 0 changed by somebody else since, 1 written, 2 locked by somebody
-- else.
CREATE FUNCTION sluice_apply_5(
    durable boolean,
    a_id bytea[], a_version xid[], a_status smallint[], a_available bigint[], a_held bigint[], a_deposited bigint[],
    a_charged bigint[], a_adjusted bigint[], a_budgets bigint[], a_last uuid[],
    b_at int[], b_id bytea[], b_parent bytea[], b_limit bigint[], b_spent bigint[], b_held bigint[], b_children bigint[],
    b_valid bigint[], b_last uuid[], b_checksum int[],
    h_at int[], h_id uuid[], h_amount bigint[], h_owner uuid[], h_context bytea[], h_usage bytea[], h_source text[],
    h_new_at int[], h_new uuid[], h_new_amount bigint[], h_new_owner uuid[],
    h_gone_at int[], h_gone uuid[],
    c_at int[], c_hold uuid[], c_prev uuid[], c_chain_prev uuid[], c_time bigint[], c_service text[], c_model text[], c_chain bytea[],
    c_source text[], c_outcome text[], c_backend text[], c_usage bytea[], c_flags smallint[], c_delivered bigint[],
    c_amount bigint[], c_charged bigint[], c_unbilled bigint[], c_epoch bigint[], c_rates bytea[], c_lock bytea[],
    c_checksum int[],
    t_at int[], t_kind smallint[], t_debit bytea[], t_credit bytea[], t_amount bigint[], t_ref bytea[], t_time bigint[],
    l_at int[], l_budget bytea[], l_hold uuid[], l_amount bigint[], l_time bigint[],
    d_at int[], d_stored boolean[], d_hash bytea[], d_credited bigint[], d_presented bigint[], d_settled bigint[], d_node text[],
    d_index bigint[], d_covered bigint[], d_doubted bigint[], d_owed bigint[],
    w_at int[], w_id bytea[], w_minute bigint[], w_count bigint[], w_previous bigint[],
    k_at int[], k_key bytea[], k_body bytea[], k_hold uuid[], k_charged boolean[], k_expires bigint[],
    j_at int[], j_id uuid[], j_delta bigint[], j_reason text[], j_time bigint[],
    s_at int[], s_node text[], s_index bigint[], s_hash bytea[], s_since bigint[], s_anew boolean[]
) RETURNS smallint[] LANGUAGE plpgsql AS $$
DECLARE
    state smallint[];
    mine bigint[]; -- places of the accounts that are written
BEGIN
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;

    -- Accounts first: those that nobody else has. A row that is locked here is found
    -- again by its place in the table, without the index.
    WITH taken AS (
        SELECT a.ctid AS place, u.* FROM unnest(a_id, a_version, a_status, a_available, a_held, a_deposited, a_charged, a_adjusted,
            a_budgets, a_last) WITH ORDINALITY
            AS u (id, version, status, available, held, deposited, charged, adjusted, budgets, last_charge, n)
        JOIN accounts a ON a.id = u.id AND a.xmin = u.version FOR NO KEY UPDATE OF a SKIP LOCKED),
    written AS (
        UPDATE accounts a SET status = u.status, available = u.available, held = u.held, deposited = u.deposited,
            charged = u.charged, adjusted = u.adjusted, budgets = u.budgets, last_charge = u.last_charge
        FROM taken u WHERE a.ctid = u.place RETURNING u.n)
    SELECT array_agg(n) INTO mine FROM written;
    IF array_position(a_version, NULL) IS NOT NULL THEN
        WITH made AS (
            INSERT INTO accounts (id, status, available, held, deposited, charged, adjusted, budgets, last_charge)
            SELECT u.id, u.status, u.available, u.held, u.deposited, u.charged, u.adjusted, u.budgets, u.last_charge
            FROM unnest(a_id, a_version, a_status, a_available, a_held, a_deposited, a_charged, a_adjusted, a_budgets, a_last)
                AS u (id, version, status, available, held, deposited, charged, adjusted, budgets, last_charge)
            WHERE u.version IS NULL ORDER BY u.id ON CONFLICT (id) DO NOTHING RETURNING id)
        SELECT mine || array_agg(u.n) INTO mine FROM made JOIN unnest(a_id) WITH ORDINALITY AS u (id, n) ON u.id = made.id;
    END IF;
    state := array_fill(0::smallint, ARRAY[coalesce(cardinality(a_id), 0)]);
    FOR i IN 1 .. coalesce(cardinality(mine), 0) LOOP
        state[mine[i]] := 1;
    END LOOP;
    IF 0 = ANY (state) THEN
        SELECT array_agg(u.n) INTO mine FROM unnest(a_id, a_version) WITH ORDINALITY AS u (id, version, n)
            JOIN accounts a ON a.id = u.id AND a.xmin = u.version WHERE state[u.n] = 0;
        FOR i IN 1 .. coalesce(cardinality(mine), 0) LOOP
            state[mine[i]] := 2;
        END LOOP;
    END IF;

    IF cardinality(b_at) > 0 THEN
        INSERT INTO budgets (id, account, parent, max_spend, spent, held, children, valid_until, last_charge, checksum)
        SELECT u.id, a_id[u.n], u.parent, u.max_spend, u.spent, u.held, u.children, u.valid_until, u.last_charge,
            u.checksum
        FROM unnest(b_at, b_id, b_parent, b_limit, b_spent, b_held, b_children, b_valid, b_last, b_checksum)
            AS u (n, id, parent, max_spend, spent, held, children, valid_until, last_charge, checksum)
        WHERE state[u.n] = 1 AND u.max_spend IS NOT NULL
        ON CONFLICT (id) DO UPDATE SET spent = excluded.spent, held = excluded.held, children = excluded.children,
            last_charge = excluded.last_charge;
        IF array_position(b_limit, NULL) IS NOT NULL THEN
            DELETE FROM budgets b USING unnest(b_at, b_id, b_limit) AS u (n, id, max_spend)
            WHERE b.id = u.id AND state[u.n] = 1 AND u.max_spend IS NULL;
        END IF;
    END IF;
    IF cardinality(h_at) > 0 THEN
        INSERT INTO holds (id, account, amount, owner, context, usage, source)
        SELECT u.id, a_id[u.n], u.amount, u.owner, u.context, u.usage, u.source
        FROM unnest(h_at, h_id, h_amount, h_owner, h_context, h_usage, h_source) AS u (n, id, amount, owner, context, usage, source)
        WHERE state[u.n] = 1;
    END IF;
    IF cardinality(h_new_at) > 0 THEN
        UPDATE holds h SET amount = u.amount, owner = u.owner
        FROM unnest(h_new_at, h_new, h_new_amount, h_new_owner) AS u (n, id, amount, owner)
        WHERE h.id = u.id AND state[u.n] = 1;
    END IF;
    IF cardinality(h_gone_at) > 0 THEN
        DELETE FROM holds h USING unnest(h_gone_at, h_gone) AS u (n, id) WHERE h.id = u.id AND state[u.n] = 1;
    END IF;

    IF cardinality(c_at) > 0 THEN
        INSERT INTO charges (hold, account, prev, chain_prev, at, service, model, chain, source, outcome, backend, usage, clamped,
            delivered, amount, charged, unbilled, epoch, rates, provisional, rate_lock, checksum)
        SELECT u.hold, a_id[u.n], u.prev, u.chain_prev, u.at, u.service, u.model, u.chain, u.source, u.outcome, u.backend, u.usage,
            u.flags & 1 <> 0, u.delivered, u.amount, u.charged, u.unbilled, u.epoch, u.rates, u.flags & 2 <> 0, u.rate_lock, u.checksum
        FROM unnest(c_at, c_hold, c_prev, c_chain_prev, c_time, c_service, c_model, c_chain, c_source, c_outcome, c_backend, c_usage,
            c_flags, c_delivered, c_amount, c_charged, c_unbilled, c_epoch, c_rates, c_lock, c_checksum)
            AS u (n, hold, prev, chain_prev, at, service, model, chain, source, outcome, backend, usage, flags, delivered, amount,
                charged, unbilled, epoch, rates, rate_lock, checksum)
        WHERE u.n > 0 AND state[u.n] = 1;
        IF 0 > ANY (c_at) THEN -- a provisional charge that its owner replaces
            UPDATE charges c SET at = u.at, source = u.source, outcome = u.outcome, backend = u.backend, usage = u.usage,
                clamped = u.flags & 1 <> 0, delivered = u.delivered, charged = u.charged, unbilled = u.unbilled, provisional = u.flags & 2 <> 0
            FROM unnest(c_at, c_hold, c_time, c_source, c_outcome, c_backend, c_usage, c_flags, c_delivered, c_charged,
                c_unbilled) AS u (n, hold, at, source, outcome, backend, usage, flags, delivered, charged, unbilled)
            WHERE u.n < 0 AND state[-u.n] = 1 AND c.hold = u.hold;
        END IF;
    END IF;

    IF cardinality(t_at) > 0 THEN
        INSERT INTO transfers (kind, debit, credit, amount, ref, at)
        SELECT u.kind, u.debit, u.credit, u.amount, u.ref, u.at
        FROM unnest(t_at, t_kind, t_debit, t_credit, t_amount, t_ref, t_time) AS u (n, kind, debit, credit, amount, ref, at)
        WHERE state[u.n] = 1;
    END IF;
    IF cardinality(l_at) > 0 THEN
        INSERT INTO budget_lines (budget, hold, amount, at)
        SELECT u.budget, u.hold, u.amount, u.at FROM unnest(l_at, l_budget, l_hold, l_amount, l_time) AS u (n, budget, hold, amount, at)
        WHERE state[u.n] = 1;
    END IF;

    IF cardinality(d_at) > 0 THEN
        -- Without ON CONFLICT: another gateway may be crediting the same payment to
        -- another account, which no lock of ours excludes. The batch runs again then.
        INSERT INTO deposits (hash, account, credited, presented, settled, node, settle_index, covered, doubted, owed)
        SELECT u.hash, a_id[u.n], u.credited, u.presented, u.settled, u.node, u.settle_index, u.covered, u.doubted, u.owed
        FROM unnest(d_at, d_stored, d_hash, d_credited, d_presented, d_settled, d_node, d_index, d_covered, d_doubted, d_owed)
            AS u (n, stored, hash, credited, presented, settled, node, settle_index, covered, doubted, owed)
        WHERE state[u.n] = 1 AND NOT u.stored;
        UPDATE deposits d SET credited = u.credited, presented = u.presented, settled = u.settled, node = u.node,
            settle_index = u.settle_index, covered = u.covered, doubted = u.doubted, owed = u.owed
        FROM unnest(d_at, d_stored, d_hash, d_credited, d_presented, d_settled, d_node, d_index, d_covered, d_doubted, d_owed)
            AS u (n, stored, hash, credited, presented, settled, node, settle_index, covered, doubted, owed)
        WHERE d.hash = u.hash AND state[u.n] = 1 AND u.stored;
    END IF;

    IF cardinality(w_at) > 0 THEN
        INSERT INTO rate_windows (id, minute, count, previous)
        SELECT u.id, u.minute, u.count, u.previous FROM unnest(w_at, w_id, w_minute, w_count, w_previous) AS u (n, id, minute, count, previous)
        WHERE state[u.n] = 1
        ON CONFLICT (id) DO UPDATE SET minute = excluded.minute, count = excluded.count, previous = excluded.previous;
    END IF;
    IF cardinality(k_at) > 0 THEN
        INSERT INTO idempotency_keys (account, key, body, hold, charged, expires)
        SELECT a_id[u.n], u.key, u.body, u.hold, u.charged, u.expires
        FROM unnest(k_at, k_key, k_body, k_hold, k_charged, k_expires) AS u (n, key, body, hold, charged, expires)
        WHERE state[u.n] = 1 AND u.expires IS NOT NULL
        ON CONFLICT (account, key) DO UPDATE SET body = excluded.body, hold = excluded.hold, charged = excluded.charged,
            expires = excluded.expires;
        IF array_position(k_expires, NULL) IS NOT NULL THEN
            DELETE FROM idempotency_keys k USING unnest(k_at, k_key, k_expires) AS u (n, key, expires)
            WHERE k.account = a_id[u.n] AND k.key = u.key AND state[u.n] = 1 AND u.expires IS NULL;
        END IF;
    END IF;
    IF cardinality(j_at) > 0 THEN
        INSERT INTO adjustments (id, account, delta, reason, at)
        SELECT u.id, a_id[u.n], u.delta, u.reason, u.at FROM unnest(j_at, j_id, j_delta, j_reason, j_time) AS u (n, id, delta, reason, at)
        WHERE state[u.n] = 1;
    END IF;

    -- Last, because gateways that follow one Lightning node meet in one row.
    IF cardinality(s_at) > 0 THEN
        INSERT INTO settle_cursors AS c (node, settle_index, hash, since)
        SELECT u.node, u.settle_index, u.hash, u.since
        FROM unnest(s_at, s_node, s_index, s_hash, s_since) AS u (n, node, settle_index, hash, since)
        WHERE u.n = 0 OR state[u.n] = 1
        ON CONFLICT (node) DO UPDATE SET settle_index = excluded.settle_index, hash = excluded.hash, since = excluded.since
        WHERE c.settle_index < excluded.settle_index OR EXISTS (SELECT 1 FROM unnest(s_node, s_anew) AS u (node, anew)
            WHERE u.node = c.node AND u.anew);
    END IF;
    RETURN state;
END $$;
