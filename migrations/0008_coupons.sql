-- Names in scopes that the catalog does not have yet, and lists of reservations and redemptions ------------------------

-- The items that a coupon names and that did not exist when it was defined; the others are in coupon_items. An item counts as
-- covered as soon as it exists.
ALTER TABLE coupons ADD COLUMN unseen_items text[] COLLATE "C" NOT NULL DEFAULT '{}';

-- The lists go from the latest backward; ids break ties.
CREATE INDEX redemptions_by_time ON redemptions (redeemed_at, external_id);
CREATE INDEX redemptions_by_coupon ON redemptions (coupon_id, redeemed_at);
CREATE INDEX reservations_by_time ON reservations (reserved_at, external_id);
CREATE INDEX reservations_by_coupon ON reservations (coupon_id, reserved_at);
CREATE INDEX reservations_by_user ON reservations (user_id, reserved_at);
CREATE INDEX reservations_by_campaign ON reservations (campaign_id, reserved_at);
CREATE INDEX redemptions_by_order ON redemptions (order_id) WHERE order_id IS NOT NULL;
