//! The checks of an assessment, each with its failures.

use domain::campaign::Audience;
use domain::coupon::{Cart, MinCartBasis};
use domain::id::CouponId;
use domain::money::Currency;

use super::{AssessmentInput, Failure, Policy};
use crate::cart::{CartAmounts, covered_lines, discount_minor};
use crate::offer_catalog::Offer;

/// The facts of a cart that decide about a coupon.
pub(super) struct CartFacts {
    currency: Currency,
    is_any_covered: bool,
    /// The sum of the covered lines, which a minimum is compared with.
    basis_minor: i64,
    is_applied: bool,
    /// 0 for a cart in another currency, whose amounts cannot be compared.
    pub discount_minor: i64,
}

impl CartFacts {
    pub fn new(input: &AssessmentInput<'_>, cart: &Cart) -> Self {
        let covered = covered_lines(input.offer, cart, input.view);
        let whole = CartAmounts::of(cart);
        let left = input.left.unwrap_or(&whole);
        let is_any_covered = covered.any();
        let basis = match input.offer.coupon.min_cart_basis {
            MinCartBasis::BeforeDiscounts => &whole,
            MinCartBasis::AfterDiscounts => left,
        };
        Self {
            currency: cart.currency,
            is_any_covered,
            basis_minor: i64::try_from(basis.covered_minor(&covered)).unwrap_or(i64::MAX),
            is_applied: cart.applied.contains(&input.offer.coupon.id),
            discount_minor: match cart.currency == input.offer.campaign.currency && is_any_covered {
                true => discount_minor(input.offer, &covered, left),
                false => 0,
            },
        }
    }
}

pub(super) fn check_cart(offer: &Offer, cart: &CartFacts, failures: &mut Vec<Failure>) {
    let (currency, required_minor) = (offer.campaign.currency, offer.coupon.min_cart_minor);
    if cart.currency == currency && cart.basis_minor < required_minor {
        failures.push(Failure::MinCartNotMet {
            required_minor,
            seen_minor: cart.basis_minor,
            currency,
        });
    }
    if !cart.is_any_covered {
        failures.push(Failure::NoQualifyingItem);
    }
    if cart.currency != currency {
        failures.push(Failure::CurrencyMismatch {
            required: currency,
            seen: cart.currency,
        });
    }
}

/// Returns the failure of a coupon that is applied to the cart already.
pub(super) fn already_applied(cart: Option<&CartFacts>) -> Option<Failure> {
    cart.is_some_and(|cart| cart.is_applied)
        .then_some(Failure::AlreadyApplied)
}

/// Checks the budget, the caps and the assignment.
pub(super) fn check_limits(input: &AssessmentInput<'_>, cart: Option<&CartFacts>, failures: &mut Vec<Failure>) {
    let usage = input.usage;
    if let Some(limit_minor) = usage.limit_minor {
        let left_minor = limit_minor - usage.reserved_minor - usage.spent_minor;
        // At least 1 must be left, so that no cart makes a user eligible who is not eligible without one.
        let needed_minor = cart.map_or(1, |cart| cart.discount_minor.max(1));
        if left_minor < needed_minor {
            failures.push(Failure::BudgetExhausted {
                needed_minor,
                left_minor,
                currency: input.offer.campaign.currency,
            });
        }
    }
    let (reserved, redeemed) = (usage.reserved, usage.redeemed);
    if let Some(cap) = usage.total_cap
        && reserved + redeemed >= cap
    {
        failures.push(Failure::TotalCapReached {
            cap,
            reserved,
            redeemed,
        });
    }
    check_user_cap(input, failures);
}

fn check_user_cap(input: &AssessmentInput<'_>, failures: &mut Vec<Failure>) {
    let usage = input.usage;
    let (reserved, redeemed) = (usage.user_reserved, usage.user_redeemed);
    match input.offer.campaign.audience {
        Audience::Assigned if !usage.is_assigned => failures.push(Failure::NotAssigned),
        // An assignment is good for one redemption.
        Audience::Assigned if redeemed >= 1 => failures.push(Failure::AlreadyRedeemed),
        Audience::Assigned if reserved >= 1 => {
            failures.push(Failure::UserCapReached {
                cap: 1,
                reserved,
                redeemed,
            });
        }
        Audience::Assigned => {}
        Audience::Everybody => {
            if let Some(cap) = input.offer.coupon.per_user_cap.map(i64::from)
                && reserved + redeemed >= cap
            {
                failures.push(Failure::UserCapReached {
                    cap,
                    reserved,
                    redeemed,
                });
            }
        }
    }
}

/// Returns the conflict with an applied or reserved coupon of another campaign, if either campaign is exclusive.
///
/// An applied coupon that is not known conflicts with nothing.
pub(super) fn exclusive_conflict(input: &AssessmentInput<'_>) -> Option<Failure> {
    let own = &input.offer.campaign;
    let known = |coupon: &CouponId| input.others.iter().find(|other| other.coupon.id == *coupon);
    let applied = input.cart.iter().flat_map(|cart| &cart.applied);
    let applied = applied.map(|coupon| (coupon, known(coupon).map(|other| &other.campaign.id)));
    let reserved = input.user.reserved.iter();
    let reserved = reserved.map(|(coupon, campaign)| (coupon, Some(campaign)));
    let mut conflicts = applied.chain(reserved).filter(|(coupon, campaign)| {
        campaign.is_some_and(|campaign| *campaign != own.id)
            && (own.is_exclusive || known(coupon).is_some_and(|other| other.campaign.is_exclusive))
    });
    let is_own = |coupon: &CouponId| {
        own.merchant.is_some() && known(coupon).is_some_and(|other| other.campaign.merchant == own.merchant)
    };
    let (first, _) = conflicts.next()?;
    // One with the merchant's own coupon may be told to the merchant, so it comes first.
    let own = is_own(first)
        .then_some(first)
        .or_else(|| conflicts.map(|(coupon, _)| coupon).find(|coupon| is_own(coupon)));
    Some(Failure::ExclusiveConflict {
        with: own.unwrap_or(first).clone(),
        with_own_merchant: own.is_some(),
    })
}

/// Checks the number of coupons that the user was offered. A coupon that was offered already does not count again.
pub(super) fn frequency_cap(input: &AssessmentInput<'_>, policy: &Policy) -> Option<Failure> {
    let max = policy.max_exposures?;
    let exposed = &input.user.recent_exposures;
    let seen = u32::try_from(exposed.len()).unwrap_or(u32::MAX);
    (seen >= max && !exposed.contains(&input.offer.coupon.id)).then_some(Failure::FrequencyCapped {
        max,
        seen,
        days: policy.exposure_window_days,
    })
}
