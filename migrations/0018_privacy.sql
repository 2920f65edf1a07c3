-- Kept answers, looked up by whom they are about --------------------------------------------------------------------------------

-- Returns the user whom a kept answer names, or the reservation that it is.
CREATE OR REPLACE FUNCTION named_in(response jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(response) WHEN 'object' THEN response ->> 'user' WHEN 'string' THEN response #>> '{}' END;

-- The collation of ids of users and of reservations, without which no comparison with them uses it.
CREATE INDEX IF NOT EXISTS request_log_by_name ON request_log (named_in(response) COLLATE "C");
-- The ids are cleared when erasures are verified, so that this index stays small.
CREATE INDEX IF NOT EXISTS erasures_by_user_id ON erasures (user_id) WHERE user_id IS NOT NULL;

-- As before, by the index.
CREATE OR REPLACE FUNCTION erase_requests(old_numbers bigint[], new_numbers bigint[], plain_ids text[]) RETURNS void
LANGUAGE sql AS $$
    WITH known AS (
        SELECT plain_id AS name, fresh.external_id AS pseudonym
        FROM UNNEST(plain_ids, new_numbers) AS told (plain_id, number) JOIN users AS fresh ON fresh.id = number
        UNION ALL
        -- A request between the two transactions of an erasure has met its first pseudonym.
        SELECT old.external_id, fresh.external_id
        FROM UNNEST(old_numbers, new_numbers) AS told (old_number, number)
        JOIN users AS old ON old.id = old_number JOIN users AS fresh ON fresh.id = number
    )
    UPDATE request_log
    SET response = response || jsonb_build_object('user', pseudonym, 'cart', NULL)
                   || CASE WHEN response ->> 'id' ~ '^(import|undone)-' THEN jsonb_build_object('id', pseudonym) ELSE '{}' END
    FROM known WHERE named_in(response) = name AND jsonb_typeof(response) = 'object'
        -- The same id may be back already.
        AND (request_log.at < COALESCE((SELECT max(received_at) FROM erasures WHERE user_id = name), 'infinity'));
    UPDATE request_log SET body_hash = uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    FROM reservations
    WHERE reservations.user_id = ANY (old_numbers) AND named_in(response) = reservations.external_id
      AND jsonb_typeof(response) = 'string';
$$;

-- Undoing an import after an erasure ---------------------------------------------------------------------------------------------

-- Undoing gives orders and lines back as they were, under the pseudonym, so that sums of money are those from before the import.
-- Everything else of an erased user is neither given back nor there to be removed.

CREATE INDEX IF NOT EXISTS import_copies_by_order ON import_copies ((row_after ->> 'order_id'))
    WHERE table_name IN ('orders', 'order_lines');

-- As before, with the orders locked before the copies of their versions are read, as an import that is replacing an order is
-- waited for.
CREATE OR REPLACE FUNCTION erase_rows(wanted bigint[], actor text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    erasure_ids bigint[];
    -- The row of users of each erasure, its new row, and its id.
    old_numbers bigint[];
    new_numbers bigint[];
    plain_ids text[];
    row_counts bigint[];
BEGIN
    SELECT array_agg(id), array_agg(user_number), array_agg(user_id) INTO erasure_ids, old_numbers, plain_ids
    FROM (SELECT id, user_number, user_id FROM erasures
          WHERE id = ANY (wanted) AND masked_at IS NOT NULL AND rows_deleted_at IS NULL
          ORDER BY id FOR UPDATE SKIP LOCKED) AS open;
    IF erasure_ids IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM FROM users WHERE id = ANY (old_numbers) ORDER BY id FOR UPDATE;
    PERFORM FROM reservations WHERE user_id = ANY (old_numbers) AND state = 'reserved' ORDER BY id FOR UPDATE;
    INSERT INTO privileged_changes (actor, action, subject, row_count)
    VALUES (actor, 'USERS_ERASED', format('erasures %s to %s', erasure_ids[1], erasure_ids[cardinality(erasure_ids)]),
            cardinality(erasure_ids));
    new_numbers := add_pseudonyms(cardinality(erasure_ids));
    row_counts := erase_personal_rows(old_numbers);
    PERFORM erase_order_hashes(old_numbers);
    PERFORM erase_copies(old_numbers, new_numbers);
    PERFORM erase_requests(old_numbers, new_numbers, plain_ids);
    row_counts := (SELECT array_agg(deleted + moved ORDER BY position)
                   FROM UNNEST(row_counts, move_kept_rows(old_numbers, new_numbers, plain_ids))
                            WITH ORDINALITY AS counts (deleted, moved, position));
    UPDATE erasures SET row_count = done.n, rows_deleted_at = clock_timestamp()
    FROM UNNEST(erasure_ids, row_counts) AS done (id, n) WHERE erasures.id = done.id;
    -- Also of earlier erasures, where somebody has erased a pseudonym.
    UPDATE erasures SET user_number = done.new_number
    FROM UNNEST(old_numbers, new_numbers) AS done (old_number, new_number) WHERE user_number = done.old_number;
    DELETE FROM users WHERE id = ANY (old_numbers);
    -- The last, as every redemption of a campaign waits for it.
    PERFORM release_reservations(new_numbers);
    DELETE FROM privileged_changes WHERE xid = pg_current_xact_id();
    RETURN cardinality(erasure_ids);
END
$$;

-- Locks the orders of users, as whoever writes lines of them does, and replaces the hashes of all versions with lines of theirs by
-- random bytes, in the orders and in the copies that imports have kept: the same hash by the same bytes, so that undoing still finds
-- the version that an import has written. The hash of an order is one of its user too, whom everything else in the order would let
-- others guess. Nothing else compares it any more: versions of an order from before an erasure are dropped.
CREATE OR REPLACE FUNCTION erase_order_hashes(numbers bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    order_ids text[];
    old_hashes text[];
    new_hashes bytea[];
BEGIN
    SELECT array_agg(order_id) INTO order_ids
    FROM (SELECT order_id FROM orders WHERE order_id IN (
              SELECT order_id FROM purchases WHERE user_id = ANY (numbers)
              UNION SELECT row_before ->> 'order_id' FROM import_copies
                    WHERE user_id = ANY (numbers) AND table_name = 'order_lines'
          ) ORDER BY order_id FOR UPDATE) AS locked;
    -- What was committed before the last lock was taken is seen from here on.
    SELECT array_agg(hash), array_agg(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) INTO old_hashes, new_hashes
    FROM (SELECT to_jsonb(content_hash) #>> '{}' AS hash FROM orders
          WHERE content_hash IS NOT NULL AND order_id IN (SELECT order_id FROM purchases WHERE user_id = ANY (numbers))
          UNION
          SELECT version.row_before ->> 'content_hash'
          FROM import_copies AS line JOIN import_copies AS version
              ON version.row_after ->> 'order_id' = line.row_after ->> 'order_id' AND version.import_id = line.import_id
                  AND version.row_after = line.row_after
          WHERE line.user_id = ANY (numbers) AND line.table_name = 'order_lines'
            AND version.table_name = 'orders' AND version.row_before ->> 'content_hash' IS NOT NULL) AS of_users;
    UPDATE orders SET content_hash = replaced.by
    FROM UNNEST(old_hashes, new_hashes) AS replaced (hash, by)
    WHERE order_id = ANY (order_ids) AND to_jsonb(content_hash) #>> '{}' = replaced.hash;
    UPDATE import_copies AS copies
    SET row_before = CASE WHEN before.by IS NULL THEN copies.row_before
                          ELSE jsonb_set(copies.row_before, '{content_hash}', to_jsonb(before.by)) END,
        row_after = CASE WHEN later.by IS NULL THEN copies.row_after
                         ELSE jsonb_set(copies.row_after, '{content_hash}', to_jsonb(later.by)) END
    FROM import_copies AS same
    LEFT JOIN UNNEST(old_hashes, new_hashes) AS before (hash, by) ON before.hash = same.row_before ->> 'content_hash'
    LEFT JOIN UNNEST(old_hashes, new_hashes) AS later (hash, by) ON later.hash = same.row_after ->> 'content_hash'
    WHERE copies.id = same.id AND same.table_name IN ('orders', 'order_lines')
      AND same.row_after ->> 'order_id' = ANY (order_ids) AND (before.hash IS NOT NULL OR later.hash IS NOT NULL);
END
$$;

DROP FUNCTION IF EXISTS erase_copies(bigint[]);
-- Deletes the copies that undoing an import would bring back, and moves those of lines of orders, which count money. It runs after
-- the rows themselves are gone, as a write that waited for one of them may have added a copy.
CREATE OR REPLACE FUNCTION erase_copies(old_numbers bigint[], new_numbers bigint[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM import_copies
    WHERE user_id = ANY (old_numbers) AND table_name NOT IN ('purchases', 'order_lines');
    UPDATE import_copies
    SET user_id = new, row_before = jsonb_set(row_before, '{user_id}', to_jsonb(new)),
        row_after = CASE table_name WHEN 'purchases' THEN jsonb_set(row_after, '{user_id}', to_jsonb(new)) ELSE row_after END
    FROM UNNEST(old_numbers, new_numbers) AS told (old, new) WHERE user_id = old;
    UPDATE import_overwritten_ratings AS batches
    SET user_ids = others.user_ids, item_ids = others.item_ids, value_list = others.value_list, times = others.times,
        import_ids = others.import_ids
    FROM import_overwritten_ratings AS old CROSS JOIN LATERAL (
        SELECT COALESCE(array_agg(user_id ORDER BY position), '{}') AS user_ids,
               COALESCE(array_agg(item_id ORDER BY position), '{}') AS item_ids,
               COALESCE(array_agg(value ORDER BY position), '{}') AS value_list,
               COALESCE(array_agg(rated_at ORDER BY position), '{}') AS times,
               COALESCE(array_agg(import_id ORDER BY position), '{}') AS import_ids
        FROM UNNEST(old.user_ids, old.item_ids, old.value_list, old.times, old.import_ids)
                 WITH ORDINALITY AS rating (user_id, item_id, value, rated_at, import_id, position)
        WHERE user_id <> ALL (old_numbers)
    ) AS others
    WHERE batches.id = old.id AND old.user_ids && old_numbers
$$;

-- As before, but a line keeps the import that has written it: `likemind.undoes` tells the trigger so.
CREATE OR REPLACE FUNCTION move_kept_rows(old_numbers bigint[], new_numbers bigint[], plain_ids text[]) RETURNS bigint[]
LANGUAGE sql SET likemind.undoes TO 'on' AS $$
    WITH told AS (
        SELECT * FROM UNNEST(old_numbers, new_numbers, plain_ids) WITH ORDINALITY AS told (old, new, plain_id, position)
    ), lines AS (
        UPDATE purchases SET user_id = new FROM told WHERE user_id = old RETURNING position
    ), proofs AS (
        UPDATE consent_events SET user_id = new, source = CASE WHEN source = plain_id OR (length(plain_id) >= 4 AND position(plain_id IN source) > 0) THEN '' ELSE source END
        FROM told WHERE user_id = old RETURNING position
    ), reserved AS (
        UPDATE reservations SET user_id = new, cart_id = NULL, share_items = '{}', share_minors = '{}'
        FROM told WHERE user_id = old RETURNING position
    ), redeemed AS (
        -- An import that had no ids has made them of the coupon, the user and the time, which lets others guess the user.
        UPDATE redemptions
        SET user_id = new,
            external_id = CASE WHEN external_id ~ '^(import|undone)-' THEN new_pseudonym() ELSE external_id END
        FROM told WHERE user_id = old RETURNING position
    ), counters AS (
        UPDATE user_coupon_counters SET user_id = new FROM told WHERE user_id = old RETURNING position
    ), ledger AS (
        UPDATE coupon_ledger SET user_id = new FROM told WHERE user_id = old RETURNING position
    ), moved AS (
        SELECT position FROM lines UNION ALL SELECT position FROM proofs UNION ALL SELECT position FROM reserved
        UNION ALL SELECT position FROM redeemed UNION ALL SELECT position FROM counters UNION ALL SELECT position FROM ledger
    ), counts AS (
        SELECT position, count(*) AS n FROM moved GROUP BY position
    )
    SELECT array_agg(COALESCE(n, 0) ORDER BY position) FROM told LEFT JOIN counts USING (position)
$$;

-- Verifying ------------------------------------------------------------------------------------------------------------------------

-- Columns of text, arrays or JSON that never hold the id of a user: they hold ids of another kind, which may be spelled alike, or
-- words that a program writes. docs/privacy.md has a row for every column. All others are searched, also those that later
-- migrations add.
CREATE OR REPLACE FUNCTION columns_without_users() RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN ARRAY[
    'allowed_sensitive_attributes.allowed_by', 'allowed_sensitive_attributes.name', 'api_keys.id', 'api_keys.role', 'audit.action',
    'audit.actor', 'audit.subject', 'campaign_states.state', 'campaigns.audience', 'campaigns.currency_code',
    'campaigns.external_id', 'campaigns.history_scope', 'campaigns.name', 'consent_events.purpose',
    'consents.purpose', 'coupon_ledger.entry', 'coupons.categories', 'coupons.discount', 'coupons.external_id',
    'coupons.merchants', 'coupons.min_cart_basis', 'coupons.rules', 'coupons.title', 'coupons.unseen_items', 'erasures.finding',
    'erasures.request_id', 'erasures.requested_by', 'erasures.user_id', 'import_copies.row_after', 'import_copies.row_before',
    'import_copies.table_name', 'imports.kind', 'imports.source', 'imports.state', 'items.category', 'items.currency_code',
    'items.external_id', 'items.title', 'leases.holder', 'leases.name', 'merchants.external_id', 'merchants.name',
    'orders.order_id', 'privileged_changes.action', 'privileged_changes.actor', 'privileged_changes.subject',
    'purchases.currency_code', 'purchases.order_id', 'redemptions.external_id', 'redemptions.order_id',
    'replenishment_policies.currency_code', 'replenishment_policies.scope', 'replenishment_policies.scope_id',
    'request_log.caller', 'request_log.request_id', 'reservations.cart_id', 'reservations.external_id',
    'reservations.share_items', 'reservations.state', 'servers.id', 'snapshot_chunks.part', 'snapshots.evaluation',
    'snapshots.input_watermark', 'snapshots.parameters', 'snapshots.state', 'user_attributes.name', 'user_attributes.value'
];

-- Columns of sentences and names that somebody has written about something else. One that equals an erased id may be a word, such as
-- the source `web`, or may mean the user: only people can tell, so that the erasure ends and names the column.
CREATE OR REPLACE FUNCTION columns_of_notes() RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN ARRAY[
    'allowed_sensitive_attributes.reason', 'api_keys.note', 'audit.note', 'consent_events.source', 'consents.source',
    'erasures.reason', 'snapshots.note', 'suppressions.reason'
];

-- Returns where the ids of `wanted` erasures still stand as ids of users, by indexes. A user who has come back is nothing to find:
-- their row says when they were erased, and what names them is younger.
CREATE OR REPLACE FUNCTION find_erased_users(wanted bigint[]) RETURNS TABLE (erasure_id bigint, place text) LANGUAGE sql AS $$
    SELECT erasures.id, 'users.external_id' FROM erasures JOIN users ON users.external_id = erasures.user_id
    WHERE erasures.id = ANY (wanted) AND (users.erased_at IS NULL OR users.erased_at < received_at)
    UNION
    SELECT erasures.id, 'request_log.response' FROM erasures JOIN request_log ON named_in(response) = erasures.user_id
    WHERE erasures.id = ANY (wanted) AND jsonb_typeof(response) = 'object' AND at <= received_at
$$;

DROP FUNCTION IF EXISTS find_erased_ids(bigint[]);
-- Returns the columns that are searched for erased ids, besides those of find_erased_users, each in a statement of its own.
CREATE OR REPLACE FUNCTION searched_columns() RETURNS TABLE (place text, is_note boolean) LANGUAGE sql STABLE AS $$
    SELECT names.place, names.place = ANY (columns_of_notes())
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    CROSS JOIN LATERAL (SELECT relname || '.' || attname AS place) AS names
    WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'erasures'::regclass)
      AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped AND relname NOT LIKE '\_%'
      AND format_type(atttypid, NULL) IN ('text', 'character varying', 'text[]', 'character varying[]', 'json', 'jsonb')
      AND names.place <> ALL (columns_without_users())
      AND names.place NOT IN ('users.external_id', 'request_log.response')
    ORDER BY names.place
$$;

-- Returns the erasures of `wanted` whose ids stand in the column `place`: as its value, as an entry of its array, or as a text or a
-- key in its JSON.
CREATE OR REPLACE FUNCTION find_erased_in(place text, wanted bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    parts text[] := string_to_array(place, '.');
    texts text;
BEGIN
    SELECT CASE format_type(atttypid, NULL)
               WHEN 'text' THEN format('SELECT searched.%I', attname)
               WHEN 'character varying' THEN format('SELECT searched.%I::text', attname)
               WHEN 'text[]' THEN format('SELECT UNNEST(searched.%I)', attname)
               WHEN 'character varying[]' THEN format('SELECT UNNEST(searched.%I)::text', attname)
               ELSE format('SELECT jsonb_path_query(searched.%1$I::jsonb, ''strict $.** ? (@.type() == "string")'') #>> ''{}''
                            UNION ALL
                            SELECT jsonb_object_keys(jsonb_path_query(searched.%1$I::jsonb,
                                                                      ''strict $.** ? (@.type() == "object")''))', attname)
           END
    INTO STRICT texts
    FROM pg_attribute WHERE attrelid = parts[1]::regclass AND attname = parts[2] AND NOT attisdropped;
    RETURN QUERY EXECUTE format(
        'SELECT DISTINCT erasures.id FROM %1$I AS searched CROSS JOIN LATERAL (%2$s) AS held (name)
         JOIN erasures ON erasures.user_id = held.name WHERE erasures.id = ANY ($1)', parts[1], texts)
    USING wanted;
END
$$;
