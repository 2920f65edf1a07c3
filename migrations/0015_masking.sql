-- Erased users in snapshots and in the memory of servers (docs/privacy.md) ----------------------------------------------------

ALTER TABLE snapshots
    -- How often erased users were removed from the bytes. Its chunks have the same number; others are of a rewrite that has not
    -- ended, or never will.
    ADD COLUMN IF NOT EXISTS redaction bigint NOT NULL DEFAULT 0,
    -- The bytes hold nobody whose erasure has this number or a lower one.
    ADD COLUMN IF NOT EXISTS erased_through bigint NOT NULL DEFAULT 0,
    -- The same of the data that it was trained on, which a rewrite does not change.
    ADD COLUMN IF NOT EXISTS trained_through bigint NOT NULL DEFAULT 0;

ALTER TABLE snapshot_chunks ADD COLUMN IF NOT EXISTS redaction bigint NOT NULL DEFAULT 0;
ALTER TABLE snapshot_chunks
    DROP CONSTRAINT IF EXISTS snapshot_chunks_pkey,
    ADD CONSTRAINT snapshot_chunks_pkey PRIMARY KEY (version, redaction, part, chunk);

-- The processes that answer from a snapshot in memory.
CREATE TABLE IF NOT EXISTS servers (
    -- Random, new in every process.
    id             text PRIMARY KEY,
    -- It answers as if it had never known anybody whose erasure has this number or a lower one.
    masked_through bigint NOT NULL,
    seen_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Erasures are committed in the order of their numbers: whoever sees one sees all lower ones. Whoever holds this row keeps others
-- from adding any.
INSERT INTO leases (name, holder, fencing_token, expires_at) VALUES ('erasures', '', 0, clock_timestamp())
ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION order_erasures() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM leases WHERE name = 'erasures' FOR UPDATE;
    RETURN NULL;
END
$$;
-- It runs before the first number is drawn.
CREATE OR REPLACE TRIGGER erasures_are_ordered BEFORE INSERT ON erasures
    FOR EACH STATEMENT EXECUTE FUNCTION order_erasures();
