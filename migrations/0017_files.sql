-- When the process of a running import last said that it is at work. One that has not for some time was killed.
ALTER TABLE imports ADD COLUMN IF NOT EXISTS alive_at timestamptz;

-- Orders that an import has replaced are kept in import_copies: a row of the table name orders with the version before and after,
-- and one of order_lines for each line that was replaced, with the version that replaced it.

-- Gives orders back the version and the lines that they had before an import, unless they have changed since. Returns how many
-- lines were given back and removed. The copies are gone afterwards.
CREATE OR REPLACE FUNCTION undo_import_orders(wanted bigint, OUT restored bigint, OUT removed bigint) LANGUAGE plpgsql AS $$
DECLARE
    latest bigint[];
    given_back jsonb[];
    n bigint;
BEGIN
    restored := 0; removed := 0;
    -- An import may have replaced an order several times: the last time is undone first.
    LOOP
        SELECT array_agg(id) INTO latest FROM (
            SELECT DISTINCT ON (row_after ->> 'order_id') id FROM import_copies
            WHERE import_id = wanted AND table_name = 'orders' ORDER BY row_after ->> 'order_id', id DESC
        ) AS copies;
        EXIT WHEN latest IS NULL;
        PERFORM FROM orders WHERE order_id IN (SELECT row_after ->> 'order_id' FROM import_copies WHERE id = ANY (latest))
        ORDER BY order_id FOR UPDATE;
        WITH given_back AS (
            UPDATE orders SET updated_at = before.updated_at, content_hash = before.content_hash
            FROM import_copies AS copy, jsonb_populate_record(NULL::orders, copy.row_before) AS before
            WHERE copy.id = ANY (latest) AND orders.order_id = copy.row_after ->> 'order_id' AND to_jsonb(orders) = copy.row_after
            RETURNING copy.row_after
        )
        SELECT COALESCE(array_agg(row_after), '{}') INTO given_back FROM given_back;
        WITH gone AS (
            -- Lines of users who were erased since have no import any more, and stay.
            DELETE FROM purchases
            WHERE import_id = wanted AND order_id IN (SELECT version ->> 'order_id' FROM UNNEST(given_back) AS version)
            RETURNING user_id, item_id
        ), logged AS (
            INSERT INTO changes (user_ids, item_ids, takes_back) SELECT array_agg(user_id), array_agg(item_id), true
            FROM (SELECT DISTINCT user_id, item_id FROM gone) AS pairs HAVING count(*) > 0
        )
        SELECT count(*) INTO n FROM gone;
        removed := removed + n;
        WITH lines AS (
            INSERT INTO purchases
            SELECT line.* FROM import_copies AS copy, jsonb_populate_record(NULL::purchases, copy.row_before) AS line
            WHERE copy.import_id = wanted AND copy.table_name = 'order_lines' AND copy.row_after = ANY (given_back)
            RETURNING user_id, item_id
        ), logged AS (
            INSERT INTO changes (user_ids, item_ids, takes_back) SELECT array_agg(user_id), array_agg(item_id), true
            FROM (SELECT DISTINCT user_id, item_id FROM lines) AS pairs HAVING count(*) > 0
        )
        SELECT count(*) INTO n FROM lines;
        restored := restored + n;
        DELETE FROM import_copies WHERE id = ANY (latest);
    END LOOP;
    DELETE FROM import_copies WHERE import_id = wanted AND table_name = 'order_lines';
END
$$;

-- As before, and orders first.
CREATE OR REPLACE FUNCTION undo_import(
    wanted bigint, OUT restored bigint, OUT removed bigint, OUT rolled_back bigint, OUT kept bigint
) LANGUAGE plpgsql SET likemind.undoes TO 'on' AS $$
DECLARE
    of_orders record;
    own record;
    copied record;
    n_lines bigint;
BEGIN
    SELECT * INTO of_orders FROM undo_import_orders(wanted);
    SELECT * INTO own FROM undo_import_ratings(wanted);
    SELECT * INTO copied FROM undo_import_copies(wanted);
    WITH gone AS (
        DELETE FROM purchases WHERE import_id = wanted RETURNING user_id, item_id
    ), logged AS (
        INSERT INTO changes (user_ids, item_ids)
        SELECT array_agg(user_id), array_agg(item_id)
        FROM (SELECT DISTINCT user_id, item_id FROM gone) AS pairs HAVING count(*) > 0
    )
    SELECT count(*) INTO n_lines FROM gone;
    rolled_back := undo_import_redemptions(wanted);
    DELETE FROM import_overwritten_ratings WHERE import_id = wanted;
    DELETE FROM import_copies WHERE import_id = wanted;
    restored := of_orders.restored + own.restored + copied.restored;
    removed := of_orders.removed + own.removed + copied.removed + n_lines;
    kept := copied.kept;
END
$$;
