-- Sensitive attributes that an operator has allowed by name in the rules of a campaign (privacy.sensitive_attributes) --------

CREATE TABLE IF NOT EXISTS allowed_sensitive_attributes (
    campaign_id bigint NOT NULL REFERENCES campaigns (id),
    name        text COLLATE "C" NOT NULL,
    -- Who allowed it: `key:<id>` for an RPC, the process for a command.
    allowed_by  text NOT NULL,
    reason      text NOT NULL,
    allowed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (campaign_id, name)
);
