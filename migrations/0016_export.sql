-- Decisions about consent as a feed for other systems -----------------------------------------------------------------------

-- The transaction that has recorded the decision, as in changes: a feed reads what was committed between two moments.
ALTER TABLE consent_events ADD COLUMN IF NOT EXISTS xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX IF NOT EXISTS consent_events_by_xid ON consent_events (xid);

-- Exports and retention look these up -----------------------------------------------------------------------------------------

CREATE INDEX IF NOT EXISTS coupon_ledger_by_user ON coupon_ledger (user_id);
CREATE INDEX IF NOT EXISTS audit_by_subject ON audit (subject);

-- Retention (privacy.retention_days) --------------------------------------------------------------------------------------------

-- Each function deletes one batch of records from before an instant and writes in the same transaction how many to the audit. A batch
-- of purchases or exposures holds those of up to `most` users whose numbers follow `after`; `last` is the number of the last of
-- them, and NULL when no users are left.

CREATE OR REPLACE FUNCTION expire_purchases(
    after bigint, most integer, before timestamptz, actor text, OUT last bigint, OUT deleted bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    chunk bigint[];
BEGIN
    deleted := 0;
    SELECT array_agg(id), max(id) INTO chunk, last
    FROM (SELECT id FROM users WHERE id > after ORDER BY id LIMIT most) AS following;
    -- Lines are written only under the locks of their orders.
    PERFORM FROM orders WHERE order_id IN (
        SELECT order_id FROM purchases WHERE user_id = ANY (chunk) AND purchased_at < before
    ) ORDER BY order_id FOR UPDATE;
    WITH gone AS (
        DELETE FROM purchases AS old WHERE user_id = ANY (chunk) AND purchased_at < before
            -- A purchase goes together with what was returned of it.
            AND NOT EXISTS (SELECT FROM purchases AS later WHERE later.user_id = old.user_id AND later.item_id = old.item_id
                            AND later.quantity < 0 AND later.purchased_at >= before)
        RETURNING user_id, item_id
    ), logged AS (
        INSERT INTO changes (user_ids, item_ids, takes_back)
        SELECT array_agg(user_id), array_agg(item_id), true
        FROM (SELECT DISTINCT user_id, item_id FROM gone) AS pairs HAVING count(*) > 0
    )
    SELECT count(*) INTO deleted FROM gone;
    PERFORM audit_expired('purchases', before, deleted, actor);
END
$$;

CREATE OR REPLACE FUNCTION expire_exposures(
    after bigint, most integer, before timestamptz, actor text, OUT last bigint, OUT deleted bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    chunk bigint[];
BEGIN
    SELECT array_agg(id), max(id) INTO chunk, last
    FROM (SELECT id FROM users WHERE id > after ORDER BY id LIMIT most) AS following;
    SELECT count(*) INTO deleted FROM exposures WHERE user_id = ANY (chunk) AND exposed_at < before;
    IF deleted > 0 THEN
        PERFORM allow_expiry('exposures', before, deleted, actor);
        DELETE FROM exposures WHERE user_id = ANY (chunk) AND exposed_at < before;
        DELETE FROM privileged_changes WHERE xid = pg_current_xact_id();
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION expire_audit(most integer, before timestamptz, actor text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    chunk bigint[];
BEGIN
    SELECT array_agg(id) INTO chunk FROM (SELECT id FROM audit WHERE at < before ORDER BY id LIMIT most) AS oldest;
    IF chunk IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM allow_expiry('audit', before, cardinality(chunk), actor);
    DELETE FROM audit WHERE id = ANY (chunk);
    DELETE FROM privileged_changes WHERE xid = pg_current_xact_id();
    RETURN cardinality(chunk);
END
$$;

CREATE OR REPLACE FUNCTION expire_requests(most integer, before timestamptz, actor text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM request_log WHERE (caller, request_id) IN (
        SELECT caller, request_id FROM request_log WHERE at < before ORDER BY at LIMIT most FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM audit_expired('request_log', before, deleted, actor);
    RETURN deleted;
END
$$;

CREATE OR REPLACE FUNCTION audit_expired(kind text, before timestamptz, deleted bigint, actor text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit (actor, action, subject, note, row_count)
    SELECT actor, 'RETENTION_ENFORCED', kind, format('before %s', before), deleted WHERE deleted > 0
$$;

-- Lets the transaction delete rows of an append-only table, which writes how many to the audit (0013_erasure.sql).
CREATE OR REPLACE FUNCTION allow_expiry(kind text, before timestamptz, deleted bigint, actor text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO privileged_changes (actor, action, subject, row_count)
    VALUES (actor, 'RETENTION_ENFORCED', format('%s before %s', kind, before), deleted)
$$;

REVOKE EXECUTE ON FUNCTION expire_purchases(bigint, integer, timestamptz, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION expire_exposures(bigint, integer, timestamptz, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION expire_audit(integer, timestamptz, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION expire_requests(integer, timestamptz, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION allow_expiry(text, timestamptz, bigint, text) FROM PUBLIC;
