-- Whole orders, and what is taken back -------------------------------------------------------------------------------------

-- One row for every order that has or had lines. Its lock orders all writes to these lines.
CREATE TABLE IF NOT EXISTS orders (
    order_id     text COLLATE "C" PRIMARY KEY,
    -- The version that was recorded as a whole, and a SHA-256 of its lines. Both are absent for an order whose lines are recorded
    -- one by one. The row of a cancelled order stays, so that an older version that arrives late does not bring it back.
    updated_at   timestamptz,
    content_hash bytea CHECK (octet_length(content_hash) = 32),
    CHECK ((updated_at IS NULL) = (content_hash IS NULL))
);
INSERT INTO orders (order_id) SELECT DISTINCT order_id FROM purchases ON CONFLICT (order_id) DO NOTHING;

-- Whether purchases were deleted, replaced or returned: the last order of the users may then be an earlier one.
ALTER TABLE changes ADD COLUMN IF NOT EXISTS takes_back boolean NOT NULL DEFAULT false;
