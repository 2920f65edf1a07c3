//! Coupons used together: the discount of each on what the others leave of the cart.
//!
//! Coupons are computed one after the other. A coupon that holds a reservation keeps its amount, line by line; every other
//! coupon is computed on what is left. So all coupons together never take more than the lines that they cover, and never more
//! than the shipping.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use domain::coupon::{Cart, Discount};
use domain::id::{CouponId, ItemId};
use domain::money::Currency;
use recommender::snapshot::view::View;

use super::cart::{CartAmounts, Covered, covered_lines, discount_minor};
use super::offer_catalog::Offer;

/// A discount that is already set aside or given, with the share of every line that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDiscount {
    pub coupon: CouponId,
    pub currency: Currency,
    /// The amount that is held now. It is smaller than the sum of the shares after a part was given back.
    pub amount_minor: i64,
    /// The shares of the lines when the discount was computed. What they leave of the amount was taken off the shipping.
    pub shares: Vec<(ItemId, i64)>,
}

/// Returns what `offer` takes off each line and off the shipping, when `left` is what other coupons leave of the cart.
///
/// The discount is spread over the covered lines by [`spread`].
///
/// Source: docs/formulas.md, "Coupons".
pub fn discount(offer: &Offer, covered: &Covered, left: &CartAmounts) -> CartAmounts {
    let amount_minor = discount_minor(offer, covered, left);
    match offer.coupon.discount {
        Discount::Percent { .. } | Discount::Amount { .. } => CartAmounts {
            lines_minor: spread(amount_minor, &left.of_covered_lines(covered)),
            shipping_minor: 0,
        },
        Discount::FreeShipping => CartAmounts {
            lines_minor: vec![0; left.lines_minor.len()],
            shipping_minor: amount_minor,
        },
    }
}

/// Returns the shares that `taken` takes off each line, without those of 0, as a [`HeldDiscount`] keeps them.
pub fn shares(cart: &Cart, taken: &CartAmounts) -> Vec<(ItemId, i64)> {
    let lines = cart.lines.iter().zip(&taken.lines_minor);
    lines
        .filter(|&(_, &share_minor)| share_minor > 0)
        .map(|(line, &share_minor)| (line.item.clone(), share_minor))
        .collect()
}

/// Returns what the applied coupons leave of `cart`.
///
/// `held`: the discounts that have a reservation for this cart, in the order of their reservations. `applied`: the other applied
/// coupons, in any order; each is computed in the order of [`compare`]. `known`: the offers of held coupons. Discounts in
/// another currency than the cart's are left out, because their amounts cannot be compared.
pub fn left_by_applied(
    cart: &Cart,
    view: Option<&View>,
    held: &[HeldDiscount],
    applied: &[&Offer],
    known: impl Fn(&CouponId) -> Option<Covered>,
) -> CartAmounts {
    let mut left = CartAmounts::of(cart);
    take_held(cart, held, known, &mut left);
    let mut applied: Vec<&Offer> = applied.to_vec();
    applied.sort_by(|a, b| compare(a, b));
    for offer in applied {
        if offer.campaign.currency == cart.currency {
            let taken = discount(offer, &covered_lines(offer, cart, view), &left);
            left.subtract(&taken);
        }
    }
    left
}

/// Takes every held discount off `left`: first each share off the lines of its item, then what did not fit, because the cart
/// has changed, off the other lines that the coupon covers.
fn take_held(cart: &Cart, held: &[HeldDiscount], known: impl Fn(&CouponId) -> Option<Covered>, left: &mut CartAmounts) {
    let mut lines_of: HashMap<&ItemId, Vec<usize>> = HashMap::new();
    for (position, line) in cart.lines.iter().enumerate() {
        lines_of.entry(&line.item).or_default().push(position);
    }
    let mut displaced = Vec::new();
    for discount in held.iter().filter(|discount| discount.currency == cart.currency) {
        let mut rest_minor = discount.amount_minor;
        let mut displaced_minor = 0;
        // An amount that was given back comes off the last lines, so that no share grows when an amount shrinks, and a coupon that
        // has since taken what was left of a line still fits.
        for (item, share_minor) in &discount.shares {
            let share_minor = rest_minor.min(*share_minor);
            rest_minor -= share_minor;
            let lines = lines_of.get(item).map_or(&[][..], Vec::as_slice);
            displaced_minor += take_from(lines, share_minor, &mut left.lines_minor);
        }
        left.shipping_minor -= rest_minor.min(left.shipping_minor);
        displaced.push((&discount.coupon, displaced_minor));
    }
    for (coupon, displaced_minor) in displaced {
        if displaced_minor > 0
            && let Some(covered) = known(coupon)
        {
            let shares = spread(displaced_minor, &left.of_covered_lines(&covered));
            for (left, share) in left.lines_minor.iter_mut().zip(shares) {
                *left -= share;
            }
        }
    }
}

/// Takes `amount_minor` off these lines, first to last. Returns the part that exceeds what they have left.
fn take_from(lines: &[usize], mut amount_minor: i64, left_minor: &mut [i64]) -> i64 {
    for &line in lines {
        let taken = amount_minor.min(left_minor[line]);
        left_minor[line] -= taken;
        amount_minor -= taken;
    }
    amount_minor
}

/// Compares two coupons by the order in which they are computed: the campaign with the higher priority first, then percent
/// before amount before free shipping, then by id.
pub fn compare(a: &Offer, b: &Offer) -> Ordering {
    let rank = |offer: &Offer| {
        let kind = match offer.coupon.discount {
            Discount::Percent { .. } => 0,
            Discount::Amount { .. } => 1,
            Discount::FreeShipping => 2,
        };
        (Reverse(offer.campaign.priority), kind)
    };
    rank(a).cmp(&rank(b)).then_with(|| a.coupon.id.cmp(&b.coupon.id))
}

/// Splits `amount_minor` in proportion to `weights`, by largest remainder; of equal remainders the first line's counts.
///
/// `amount_minor` and `weights`: 0 or more. Returns one share for each weight, at most the weight. The shares sum to the amount,
/// or to the sum of the weights if that is smaller.
pub fn spread(amount_minor: i64, weights: &[i64]) -> Vec<i64> {
    let sum: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
    let amount = i128::from(amount_minor).min(sum);
    if amount == 0 {
        return vec![0; weights.len()];
    }
    // The products fit: both factors are below 2^63.
    let exact = |&weight: &i64| amount * i128::from(weight);
    let mut shares: Vec<i64> = weights.iter().map(|weight| saturated(exact(weight) / sum)).collect();
    let floors: i128 = shares.iter().map(|&share| i128::from(share)).sum();
    // At most one unit for each line is missing, so the conversion cannot fail.
    let missing = usize::try_from(amount - floors).unwrap_or(0);
    let mut lines: Vec<usize> = (0..weights.len()).collect();
    lines.sort_by_key(|&line| Reverse(exact(&weights[line]) % sum));
    for line in lines.into_iter().take(missing) {
        shares[line] += 1;
    }
    shares
}

fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
