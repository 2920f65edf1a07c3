//! Reserves a coupon. Eligibility is decided under the user's lock, by the state read there.

use std::sync::Arc;

use crate::store::coupons::eligibility::UserCouponState;
use crate::store::error::StoreError;
use crate::store::redemptions::requests::{Done, Request};
use crate::store::redemptions::{self, Grant, ReserveError as StoreReserveError, Wanted};
use coupons::eligibility::{Assessment, Verdict};
use coupons::offer_catalog::Offer;
use coupons::visibility;
use domain::access::Caller;
use domain::campaign::Audience;
use domain::coupon::Cart;
use domain::id::{CouponId, ItemId, RedemptionId, ReservationId, UserId};
use domain::redemption::Reservation;

use super::eligibility::{EligibilityError, EligibilityService, OtherOffers, UserAssessor, applied, reader};
use super::random::random_bytes;
use super::sweep::release_expired;

#[derive(Debug, Clone)]
pub struct ReserveRequest {
    pub request: Request,
    pub user: UserId,
    pub coupon: CouponId,
    pub cart: Cart,
    pub caller: Arc<Caller>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    #[error("there is no coupon {0}")]
    UnknownCoupon(CouponId),
    #[error("the user is not eligible for the coupon")]
    NotEligible {
        /// The part that the caller may see; at least one failure.
        assessment: Assessment,
        offer: Arc<Offer>,
    },
    #[error("cart.cart_id must be given to reserve a coupon together with others, because it tells which they are")]
    CartIdMissing,
    #[error(
        "cart.applied_coupon_ids names coupon {0}, which has no open or confirmed reservation of this user and cart; \
         reserve it first"
    )]
    NotApplied(CouponId),
    /// Other reservations took what was free, at every attempt.
    #[error("other reservations took what was free; try again")]
    Contended,
    #[error("the operating system provides no random numbers")]
    NoRandomness,
    #[error(transparent)]
    Eligibility(#[from] EligibilityError),
}

impl From<StoreError> for ReserveError {
    fn from(error: StoreError) -> Self {
        Self::Eligibility(error.into())
    }
}

/// The reason why a coupon is not granted.
enum Refusal {
    NotEligible(Assessment),
    NotApplied(CouponId),
}

/// How often a reservation is tried when another one takes what was free.
const ATTEMPTS: u32 = 3;

impl EligibilityService {
    /// Reserves the discount that the coupon gives on the cart.
    ///
    /// # Errors
    /// [`ReserveError::NotEligible`] has every reason.
    pub async fn reserve(&self, request: &ReserveRequest) -> Result<Done<Reservation>, ReserveError> {
        let is_alone = request.cart.applied.iter().all(|applied| *applied == request.coupon);
        if request.cart.id.is_none() && !is_alone {
            return Err(ReserveError::CartIdMissing);
        }
        let wanted = Wanted {
            reservation: ReservationId::new(random_id()?).map_err(|_| ReserveError::NoRandomness)?,
            user: request.user.clone(),
            coupon: request.coupon.clone(),
            cart: request.cart.id.clone(),
            exposure_window_days: self.policy.exposure_window_days,
        };
        for attempt in 1..=ATTEMPTS {
            // Definitions and the view are fetched before the lock is taken.
            let offer = self
                .named_offer(&request.coupon, &request.cart, &request.caller)
                .await?;
            let offer = offer.ok_or_else(|| ReserveError::UnknownCoupon(request.coupon.clone()))?;
            let (offer_catalog, view) = (self.live.offer_catalog(), self.live.view());
            let reserved = redemptions::reserve(&self.pool, &request.request, &wanted, |user| {
                let cart = Some(&request.cart);
                if let Some(coupon) = not_applied(request, user) {
                    return Err(Refusal::NotApplied(coupon.clone()));
                }
                let applied = applied(&offer_catalog, cart, &request.caller);
                let others = OtherOffers::new(applied, user, &offer_catalog);
                let assessor = UserAssessor::new(user, view.as_deref(), cart, &others);
                let Some(usage) = user.usages.get(&request.coupon) else {
                    return Err(Refusal::NotEligible(Assessment::unknown_coupon()));
                };
                let assessment = assessor.assess(&offer, usage, &self.policy);
                match (assessment.verdict, assessment.discount_minor) {
                    (Verdict::Eligible, Some(amount_minor)) => Ok(grant(&offer, amount_minor, assessor.shares(&offer))),
                    _ => Err(Refusal::NotEligible(assessment)),
                }
            });
            match reserved.await {
                Ok(done) => return Ok(done),
                Err(StoreReserveError::Store(error)) => return Err(error.into()),
                Err(StoreReserveError::Refused(Refusal::NotApplied(coupon))) => {
                    return Err(ReserveError::NotApplied(coupon));
                }
                Err(StoreReserveError::Refused(Refusal::NotEligible(assessment))) => {
                    // Expired reservations may be the only reason.
                    if attempt < ATTEMPTS && may_be_held(&assessment) && release_expired(&self.pool).await? > 0 {
                        continue;
                    }
                    let assessment = visibility::of_assessment(assessment, reader(&request.caller), Some(&offer));
                    return Err(ReserveError::NotEligible { assessment, offer });
                }
                Err(StoreReserveError::Taken) => {
                    release_expired(&self.pool).await?;
                }
            }
        }
        Err(ReserveError::Contended)
    }
}

/// Returns whether a limit is reached that expired reservations may count towards.
fn may_be_held(assessment: &Assessment) -> bool {
    use coupons::eligibility::Code::{BudgetExhausted, TotalCapReached, UserCapReached};
    let is_limit = |code| [BudgetExhausted, TotalCapReached, UserCapReached].contains(&code);
    assessment.failures.iter().any(|failure| is_limit(failure.code()))
}

/// Returns the first coupon that is named as applied to the cart and holds no discount there. The coupon to reserve is left out:
/// the assessment says that it is applied already.
fn not_applied<'a>(request: &'a ReserveRequest, user: &UserCouponState) -> Option<&'a CouponId> {
    let is_held = |coupon: &CouponId| user.held.iter().any(|held| held.coupon == *coupon);
    let mut applied = request.cart.applied.iter();
    applied.find(|&coupon| *coupon != request.coupon && !is_held(coupon))
}

fn grant(offer: &Offer, amount_minor: i64, shares: Vec<(ItemId, i64)>) -> Grant {
    let by_assignment = offer.campaign.audience == Audience::Assigned;
    Grant {
        amount_minor,
        shares,
        // An assignment allows one redemption.
        user_cap: match by_assignment {
            true => Some(1),
            false => offer.coupon.per_user_cap.map(i64::from),
        },
        by_assignment,
    }
}

/// Generates the id of a new redemption.
///
/// # Errors
/// [`ReserveError::NoRandomness`].
pub fn new_redemption_id() -> Result<RedemptionId, ReserveError> {
    RedemptionId::new(random_id()?).map_err(|_| ReserveError::NoRandomness)
}

/// Returns 128 random bits in hexadecimal digits.
fn random_id() -> Result<String, ReserveError> {
    let bytes: [u8; 16] = random_bytes().map_err(|_| ReserveError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
