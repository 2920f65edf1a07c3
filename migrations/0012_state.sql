-- What the rules of a campaign's coupons see of a user's history: that of the campaign's own merchant, or that of all.
ALTER TABLE campaigns
    ADD COLUMN IF NOT EXISTS history_scope text NOT NULL DEFAULT 'own' CHECK (history_scope IN ('own', 'platform'));

-- The key by which servers authenticate what they hand out and get back, such as the tokens of pages of targets. All servers of
-- a database have the same one.
CREATE TABLE IF NOT EXISTS token_key (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    secret  bytea NOT NULL CHECK (octet_length(secret) = 32)
);
-- 244 random bits.
INSERT INTO token_key (secret) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) ON CONFLICT DO NOTHING;
