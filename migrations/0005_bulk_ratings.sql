-- Ratings come by the million. What every one of them cost beside itself, a batch pays once.

-- The pairs that one batch has changed, in one row of the feed, which has neither user_id nor item_id then.
ALTER TABLE changes
    DROP CONSTRAINT changes_check,
    ADD COLUMN user_ids bigint[], ADD COLUMN item_ids bigint[],
    ADD CHECK (CASE WHEN user_ids IS NULL THEN item_ids IS NULL AND (user_id IS NOT NULL OR item_id IS NOT NULL)
                    ELSE user_id IS NULL AND item_id IS NULL AND cardinality(user_ids) = cardinality(item_ids) END),
    ALTER COLUMN user_ids SET STORAGE EXTERNAL, ALTER COLUMN item_ids SET STORAGE EXTERNAL,
    -- Nothing is planned by them.
    ALTER COLUMN user_ids SET STATISTICS 0, ALTER COLUMN item_ids SET STATISTICS 0;

-- A foreign key looks up and locks user and item of every row by itself, which took two thirds of the time. Here a
-- statement's users are looked up and locked together, each once; its items are only looked up: to delete one takes a lock
-- of the whole table.
ALTER TABLE ratings DROP CONSTRAINT ratings_user_id_fkey, DROP CONSTRAINT ratings_item_id_fkey;

CREATE FUNCTION check_references_of_ratings() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    user_ids CONSTANT bigint[] := ARRAY(SELECT DISTINCT user_id FROM added);
    item_ids CONSTANT bigint[] := ARRAY(SELECT DISTINCT item_id FROM added);
    found_users bigint;
BEGIN
    PERFORM FROM users WHERE id = ANY(user_ids) ORDER BY id FOR KEY SHARE;
    GET DIAGNOSTICS found_users = ROW_COUNT;
    IF found_users < cardinality(user_ids)
        OR (SELECT count(*) FROM items WHERE id = ANY(item_ids)) < cardinality(item_ids) THEN
        RAISE EXCEPTION 'a rating refers to a user or an item that is not there' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER ratings_refer_to_what_is_there AFTER INSERT ON ratings
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_references_of_ratings();

CREATE FUNCTION keep_users_of_ratings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM removed WHERE EXISTS (SELECT FROM ratings WHERE user_id = removed.id)) THEN
        RAISE EXCEPTION 'ratings refer to a user that is to be deleted' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER users_of_ratings_stay AFTER DELETE ON users
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION keep_users_of_ratings();

CREATE FUNCTION keep_items_of_ratings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Waits for whoever may have looked the item up and not committed yet; who comes later will not find it.
    LOCK TABLE ratings IN SHARE MODE;
    IF EXISTS (SELECT FROM removed WHERE EXISTS (SELECT FROM ratings WHERE item_id = removed.id)) THEN
        RAISE EXCEPTION 'ratings refer to an item that is to be deleted' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER items_of_ratings_stay AFTER DELETE ON items
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION keep_items_of_ratings();
