//! The long help of `likemind import`.

pub(super) const HELP: &str = "\
Fields (those with * are required: map them, set them, or have a column of the same name):
  ratings    user_id* item_id* value* rated_at
  purchases  order_id* line_number user_id* item_id* quantity* currency* purchased_at*,
             one of line_total_minor, line_total and unit_price*,
             and coupon_discount_minor or coupon_discount: the discount that coupons gave on the line
  orders     the fields of purchases, updated_at*, and canceled
  items      item_id* title merchant_id category listed,
             and price or price_minor, together with currency
  merchants  merchant_id* name
  campaigns  campaign_id* merchant_id name state starts_at* currency* priority exclusive audience
             holdout_basis_points, one of ends_at and ends_on*, and budget or budget_minor
  coupons    coupon_id* campaign_id* title currency* max_discount_minor min_cart_minor min_cart_basis covers
             per_user_cap total_cap, and one of percent, amount, amount_minor and free_shipping*
  coupon-items  coupon_id* item_id*
  assignments   campaign_id* user_id*
  redemptions   coupon_id* user_id* redeemed_at* redemption_id order_id amount_minor
  attributes    user_id* name* value*
  consents      user_id* purpose* granted* decided_at source
  suppressions  user_id* reason
  inventory     item_id* on_hand* on_order expected_at backordered counted_at
  policies      scope* id lead_time_days* review_period_days* min_order_quantity order_multiple
                max_cover_days, one of cycle_service_level and fill_rate*, and unit_cost or
                unit_cost_minor together with currency

Values:
  An empty cell leaves the stored value as it is. In a field with * it is an error.
  A template names columns in braces: --map 'title={type} {size}'.
  rated_at: the latest rating wins. Without rated_at every rating is dated with the start of the
  import; to make repeated imports have no effect, set a date: --set rated_at=2024-01-01.
  line_total, unit_price and price are decimal numbers in major units (pounds, not pence), with no more
  decimals than the currency has unless --round is given. Signs of currencies may stand before or
  after them. A negative quantity is a return. The discounts of all lines must have the same sign. Without line_number, lines with the same order, user and item are numbered in
  the order of the file; all lines of an order must then be in one file and close to each other.
  orders replaces an order with its newest version, by updated_at: all lines of a version must stand
  together, and one that is canceled (true, yes or 1) is left out. An order whose lines are all
  canceled is taken away. Without line_number, lines are numbered by their place in the order. An
  order with a line that cannot be imported is not stored.
  state is draft, scheduled, active, paused or ended. Without state, a new campaign has ended if its
  window is over, and is a draft otherwise. ends_on is the last day of a campaign, ends_at the first
  instant after its end. audience is all or assigned. covers is all or items; items are those imported
  as coupon-items. min_cart_basis is before_discounts or after_discounts: whether min_cart_minor is
  compared with the cart before or after the discounts of other coupons.
  Import campaigns before their coupons and assignments, and coupons before their items and
  redemptions: lines that refer to unknown records are rejected. A redemption without redemption_id
  is identified by coupon, user and instant.
  purpose is marketing, profiling or training; the latest decision wins. Suppressed users are never
  offered anything.
  inventory: the latest count of an item is in force, less what was sold since. Without counted_at
  every count is dated with the start of the import. expected_at says when on_order arrives.
  scope is item, category, merchant or default, and id names the item, category or merchant; the most
  specific policy of an item is followed.
  Times without an offset are in --time-zone. Where its clocks show a time twice, the earlier is meant.

  Names of columns match without regard to case, blanks and underscores. Blanks around cells mean
  nothing. The rules for cells apply in this order: --null, --fill-forward, --default, --map-value,
  --negate, --where.

Lines that cannot be imported go to the file of rejects with line number, field, reason, message and
the original record; all other lines are imported. If no line can be imported, or more than
--max-reject-share of them cannot, the command ends with exit code 6; if that is so for the first
10,000 lines, nothing is stored. To repeat an import, after an interruption or with
corrected lines, import the whole file again: the result is the same as that of a single import.

--dry-run stores nothing and shows how the file is understood. likemind import list lists the imports that
stored something, and likemind import undo ID takes one back.

Examples:
  likemind import ratings ratings.csv.gz --map value=stars,rated_at=timestamp --time-format unix
  likemind import purchases purchases.csv.zst \\
    --map order_id=invoice,user_id=customer_id,item_id=stock_code,quantity=qty,purchased_at=ts \\
    --set currency=GBP --time-zone Europe/London
  zcat items.csv.gz | likemind import items - --map 'item_id=sku,title={type} {size}'";
