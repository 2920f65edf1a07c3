-- The cart that a reservation was made for, and what it takes off each of the cart's lines ---------------------------

ALTER TABLE reservations
    -- Absent: the caller has not named the cart.
    ADD COLUMN cart_id text COLLATE "C",
    -- The items of the lines, in the order of the cart, and the share of each. What the shares leave of amount_minor is taken off
    -- the shipping. Both are empty without a cart_id.
    ADD COLUMN share_items text[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN share_minors bigint[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT shares_are_of_items CHECK (cardinality(share_items) = cardinality(share_minors));
CREATE INDEX reservations_by_cart ON reservations (user_id, cart_id) WHERE cart_id IS NOT NULL;

-- Whether a coupon's minimum is compared with the cart before or after the discounts of other coupons.
ALTER TABLE coupons
    ADD COLUMN min_cart_basis text NOT NULL DEFAULT 'before_discounts'
        CHECK (min_cart_basis IN ('before_discounts', 'after_discounts'));
