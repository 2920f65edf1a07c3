-- The invariants of redemptions: counters equal the sums of the ledger and what is open and redeemed, and no limit is exceeded.
-- Every row of the result is a violation, in words.
--
--   psql "$DATABASE_URL" -f tests/faults/redemption_invariants.sql
WITH of_coupons AS (
    SELECT coupon_id, sum(reserved) AS reserved, sum(redeemed) AS redeemed FROM coupon_ledger GROUP BY coupon_id
), of_users AS (
    SELECT coupon_id, user_id, sum(reserved) AS reserved, sum(redeemed) AS redeemed
    FROM coupon_ledger GROUP BY coupon_id, user_id
), of_campaigns AS (
    SELECT campaign_id, sum(reserved_minor) AS reserved, sum(spent_minor) AS spent
    FROM coupon_ledger GROUP BY campaign_id
), open AS (
    SELECT * FROM reservations WHERE state = 'reserved'
)
SELECT format('coupon %s: %s, not as its ledger: %s', coupon_id, counters, of_coupons)
FROM coupon_counters AS counters FULL JOIN of_coupons USING (coupon_id)
WHERE (counters.reserved, counters.redeemed) IS DISTINCT FROM
      (COALESCE(of_coupons.reserved, 0)::bigint, COALESCE(of_coupons.redeemed, 0)::bigint)
UNION ALL
SELECT format('user %s: %s, not as their ledger: %s', user_id, counters, of_users)
FROM user_coupon_counters AS counters FULL JOIN of_users USING (coupon_id, user_id)
WHERE (counters.reserved, counters.redeemed) IS DISTINCT FROM
      (COALESCE(of_users.reserved, 0)::bigint, COALESCE(of_users.redeemed, 0)::bigint)
UNION ALL
SELECT format('campaign %s: %s, not as its ledger: %s', campaign_id, states, of_campaigns)
FROM campaign_states AS states FULL JOIN of_campaigns USING (campaign_id)
WHERE (reserved_minor, spent_minor) IS DISTINCT FROM
      (COALESCE(of_campaigns.reserved, 0)::bigint, COALESCE(of_campaigns.spent, 0)::bigint)
UNION ALL
SELECT format('coupon %s: %s, not what is open and redeemed', coupon_id, counters)
FROM coupon_counters AS counters
WHERE reserved <> (SELECT count(*) FROM open WHERE open.coupon_id = counters.coupon_id)
   OR redeemed <> (SELECT count(*) FROM redemptions
                   WHERE redemptions.coupon_id = counters.coupon_id AND NOT is_cap_restored)
   OR reserved + redeemed > total_cap
UNION ALL
SELECT format('user %s: %s, not what is open and redeemed', user_id, counters)
FROM user_coupon_counters AS counters
WHERE reserved <> (SELECT count(*) FROM open
                   WHERE open.coupon_id = counters.coupon_id AND open.user_id = counters.user_id)
   OR redeemed <> (SELECT count(*) FROM redemptions
                   WHERE redemptions.coupon_id = counters.coupon_id AND redemptions.user_id = counters.user_id
                     AND NOT is_cap_restored)
   OR reserved + redeemed > cap
UNION ALL
SELECT format('campaign %s: %s, not what is open and spent', campaign_id, states)
FROM campaign_states AS states
WHERE reserved_minor <> (SELECT COALESCE(sum(amount_minor), 0) FROM open
                         WHERE open.campaign_id = states.campaign_id)
   OR spent_minor <> (SELECT COALESCE(sum(amount_minor - rolled_back_minor), 0) FROM redemptions
                      WHERE redemptions.campaign_id = states.campaign_id)
   OR reserved_minor + spent_minor > limit_minor
