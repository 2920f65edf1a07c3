//! Decides which coupons a user is eligible for, and lists those that they can use.
//!
//! Definitions and history come from memory. The state that changes with every redemption comes from the database, in one
//! query. First everything is gathered; then it is assessed without I/O.

use std::borrow::Cow;
use std::sync::Arc;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::eligibility::{self, UserCouponState};
use crate::store::coupons::exposures;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use coupons::affinity::{affinity_of, is_covered};
use coupons::cart::{CartAmounts, covered_lines};
use coupons::eligibility::{
    Assessment, AssessmentInput, Failure, Policy, Usage, Verdict, assess, covers_by_facts, needs_view,
};
use coupons::offer_catalog::{Offer, OfferCatalog};
use coupons::rules::history::History;
use coupons::rules::{CompiledRules, Users};
use coupons::scope;
use coupons::stacking::{HeldDiscount, discount, left_by_applied, shares};
use coupons::visibility::{self, Reader};
use domain::access::{Caller, Role};
use domain::campaign::CampaignState;
use domain::consent::Purpose;
use domain::coupon::Cart;
use domain::id::{CouponId, ItemId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::view::View;

/// Answers questions about eligibility and reserves coupons.
#[derive(Clone)]
pub struct EligibilityService {
    pub pool: Pool,
    pub live: Live,
    pub policy: Policy,
}

/// The coupons that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The named coupons, in this order.
    Named(Vec<CouponId>),
    /// All coupons that are on offer to the user now.
    OnOffer,
}

#[derive(Debug, Clone)]
pub struct CheckRequest {
    pub user: UserId,
    pub coupons: Selection,
    pub cart: Option<Cart>,
    pub caller: Arc<Caller>,
}

/// Asks for the coupons that a user can use, best first.
#[derive(Debug, Clone)]
pub struct UserCouponsRequest {
    /// Checks all coupons that are on offer.
    pub check: CheckRequest,
    pub limit: usize,
    /// Whether the user's history may order the coupons.
    pub personalized: bool,
    /// Logs no coupon as offered.
    pub preview: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EligibilityError {
    /// The answer depends on the user's history or on facts about items.
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EligibilityService {
    /// Fetches everything that the answer depends on.
    ///
    /// # Errors
    /// See [`EligibilityError`]. An unknown coupon is not an error but a reason.
    pub async fn gather(&self, request: &CheckRequest) -> Result<EligibilityInputs, EligibilityError> {
        let offer_catalog = self.offer_catalog_for(&request.coupons).await?;
        let sees = |offer: &&Arc<Offer>| request.caller.sees(offer.merchant());
        let chosen: Vec<(CouponId, Option<Arc<Offer>>)> = match &request.coupons {
            Selection::Named(ids) => ids
                .iter()
                .map(|id| (id.clone(), offer_catalog.offer(id).filter(sees).cloned()))
                .collect(),
            Selection::OnOffer => offer_catalog
                .offers()
                .filter(sees)
                .filter(|offer| may_be_on_offer(offer))
                .map(|offer| (offer.coupon.id.clone(), Some(offer.clone())))
                .collect(),
        };
        let view = self.live.view();
        let offers = || chosen.iter().filter_map(|(_, offer)| offer.as_deref());
        let applied = applied(&offer_catalog, request.cart.as_ref(), &request.caller);
        let need_view = offers().any(|offer| needs_view(offer, request.cart.as_ref()))
            || applied.iter().any(|offer| covers_by_facts(offer));
        if view.is_none() && need_view {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        let known: Vec<CouponId> = offers().map(|offer| offer.coupon.id.clone()).collect();
        let cart = request.cart.as_ref().and_then(|cart| cart.id.as_ref());
        let days = self.policy.exposure_window_days;
        let mut user = eligibility::read(&self.pool, &request.user, &known, cart, days).await?;
        // Their discounts would tell a merchant of the coupons of others.
        user.held.retain(|held| {
            let offer = offer_catalog.offer(&held.coupon);
            offer.is_none_or(|offer| request.caller.sees(offer.merchant()))
        });
        Ok(EligibilityInputs {
            others: OtherOffers::new(applied, &user, &offer_catalog),
            request: request.clone(),
            policy: self.policy,
            chosen,
            view,
            user,
        })
    }

    /// Logs the listed coupons as offered, and those that would be listed but for the holdout as held out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_exposures(&self, listed: &Listed) -> Result<(), StoreError> {
        exposures::log_of_user(&self.pool, &listed.user, listed.snapshot_version, &listed.exposures).await
    }

    /// Returns the named coupon if it exists and the caller may see it.
    pub(super) async fn named_offer(
        &self,
        coupon: &CouponId,
        cart: &Cart,
        caller: &Caller,
    ) -> Result<Option<Arc<Offer>>, EligibilityError> {
        let offer_catalog = self.offer_catalog_for(&Selection::Named(vec![coupon.clone()])).await?;
        let offer = offer_catalog
            .offer(coupon)
            .filter(|offer| caller.sees(offer.merchant()));
        let Some(offer) = offer else { return Ok(None) };
        let applied = applied(&offer_catalog, Some(cart), caller);
        let need_view = needs_view(offer, Some(cart)) || applied.iter().any(|offer| covers_by_facts(offer));
        if self.live.view().is_none() && need_view {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        Ok(Some(offer.clone()))
    }

    /// Returns the definitions. Reads them again when a requested coupon is not among them.
    async fn offer_catalog_for(&self, coupons: &Selection) -> Result<Arc<OfferCatalog>, EligibilityError> {
        let offer_catalog = self.live.offer_catalog();
        let is_missing = |id: &CouponId| offer_catalog.offer(id).is_none();
        let may_be_old = match coupons {
            Selection::Named(ids) => ids.iter().any(is_missing),
            // The catalog is empty after a start, until it is read for the first time.
            Selection::OnOffer => offer_catalog.offers().next().is_none(),
        };
        if may_be_old {
            self.live.refresh_offer_catalog().await?;
            return Ok(self.live.offer_catalog());
        }
        Ok(offer_catalog)
    }
}

/// A user and the coupons of a request, as they are at one moment.
pub struct EligibilityInputs {
    request: CheckRequest,
    policy: Policy,
    /// Has `None` for a coupon that does not exist or that this caller may not see.
    chosen: Vec<(CouponId, Option<Arc<Offer>>)>,
    view: Option<Arc<View>>,
    user: UserCouponState,
    others: OtherOffers,
}

#[derive(Debug, Clone)]
pub struct Checked {
    /// 0 while no snapshot is loaded.
    pub snapshot_version: i64,
    /// The moment at which the answer holds.
    pub checked_at: Timestamp,
    pub coupons: Vec<CheckedCoupon>,
}

#[derive(Debug, Clone)]
pub struct CheckedCoupon {
    pub coupon: CouponId,
    /// `None` for a coupon that does not exist or that this caller may not see.
    pub offer: Option<Arc<Offer>>,
    /// The part that the caller may see.
    pub assessment: Assessment,
}

#[derive(Debug, Clone)]
pub struct Listed {
    pub snapshot_version: i64,
    /// Whether the user's history was used.
    pub personalized: bool,
    /// Best first.
    pub coupons: Vec<ListedCoupon>,
    pub user: UserId,
    /// Whether the coupons are logged as offered.
    pub is_logged: bool,
    /// The coupons that the user is exposed to for the first time, which are to be logged, and whether the user is held out.
    pub exposures: Vec<(CouponId, bool)>,
}

#[derive(Debug, Clone)]
pub struct ListedCoupon {
    pub offer: Arc<Offer>,
    pub verdict: Verdict,
    /// The affinity; 0 without personalization.
    pub score: f64,
    pub discount_minor: Option<i64>,
}

impl EligibilityInputs {
    /// Estimates the work of an assessment, in multiply-adds.
    pub fn work(&self) -> usize {
        /// The cost of looking up one name.
        const NAME: usize = 200;
        /// The cost of checking whether one item is covered.
        const CHECK: usize = 10;
        let cart = self.request.cart.as_ref().map_or(0, |cart| cart.lines.len() * NAME);
        let history = self.view.as_ref().map_or(0, |view| {
            let index = view.user(&self.request.user);
            let rated = index.map_or(0, |user| view.snapshot.ratings().row_range(user.at()).len());
            rated * view.snapshot.parameters().options.neighbors * CHECK
        });
        self.chosen.len() * (NAME + cart + history)
    }

    /// Assesses every coupon of the request.
    pub fn check(&self) -> Checked {
        let reader = reader(&self.request.caller);
        let coupons = self.assess_all().map(|coupon| CheckedCoupon {
            assessment: visibility::of_assessment(coupon.assessment, reader, coupon.offer.as_deref()),
            ..coupon
        });
        let coupons = match self.request.coupons {
            Selection::Named(_) => coupons.collect(),
            Selection::OnOffer => coupons.filter(|coupon| is_on_offer(&coupon.assessment)).collect(),
        };
        Checked {
            snapshot_version: self.snapshot_version(),
            checked_at: self.user.now,
            coupons,
        }
    }

    /// Lists the coupons that the user can use, best first.
    pub fn list(&self, request: &UserCouponsRequest) -> Listed {
        let may_profile = self.policy.privacy.allows(self.user.user.consents, Purpose::Profiling);
        let personalized = request.personalized && may_profile;
        let view = self.view.as_deref().filter(|_| personalized);
        let recent = &self.user.user.recent_exposures;
        let mut exposures_left = self
            .policy
            .max_exposures
            .map(|max| (max as usize).saturating_sub(recent.len()));
        let (mut coupons, mut exposures) = (Vec::new(), Vec::new());
        for (coupon, is_held_out) in self.ranked(view) {
            if coupons.len() == request.limit {
                break;
            }
            let id = &coupon.offer.coupon.id;
            if let Some(left) = exposures_left.as_mut().filter(|_| !recent.contains(id)) {
                let Some(fewer) = left.checked_sub(1) else { continue };
                *left = fewer;
            }
            if !request.preview && !self.user.exposed.contains(id) {
                exposures.push((id.clone(), is_held_out));
            }
            if !is_held_out {
                coupons.push(coupon);
            }
        }
        Listed {
            snapshot_version: self.snapshot_version(),
            personalized,
            coupons,
            user: self.request.user.clone(),
            is_logged: !request.preview,
            exposures,
        }
    }

    /// Ranks the coupons that the user can use and, in the same order, those that they are held out of, so that the
    /// held-out coupons are those that would have been listed. Scores by affinity if there is a `view`.
    fn ranked(&self, view: Option<&View>) -> Vec<(ListedCoupon, bool)> {
        let mut ranked: Vec<(ListedCoupon, bool)> = self
            .assess_all()
            .filter_map(|coupon| {
                let (offer, assessment) = (coupon.offer?, coupon.assessment);
                let is_held_out = assessment.is_held_out_target();
                (is_held_out || assessment.is_target()).then(|| {
                    let coupon = ListedCoupon {
                        score: view.map_or(0.0, |view| affinity(view, &offer, &self.request.user)),
                        verdict: assessment.verdict,
                        discount_minor: assessment.discount_minor,
                        offer,
                    };
                    (coupon, is_held_out)
                })
            })
            .collect();
        ranked.sort_by(|(a, _), (b, _)| a.rank(b));
        ranked
    }

    fn snapshot_version(&self) -> i64 {
        self.view.as_ref().map_or(0, |view| view.version)
    }

    /// Assesses every coupon, with all reasons, as an operator may see them.
    fn assess_all(&self) -> impl Iterator<Item = CheckedCoupon> {
        let assessor = UserAssessor::new(
            &self.user,
            self.view.as_deref(),
            self.request.cart.as_ref(),
            &self.others,
        );
        self.chosen.iter().map(move |(coupon, offer)| CheckedCoupon {
            assessment: match (offer, self.user.usages.get(coupon)) {
                (Some(offer), Some(usage)) => assessor.assess(offer, usage, &self.policy),
                _ => Assessment::unknown_coupon(),
            },
            coupon: coupon.clone(),
            offer: offer.clone(),
        })
    }
}

/// Assesses one user, with their history and cart, for one coupon after the other.
pub(super) struct UserAssessor<'a> {
    user: &'a UserCouponState,
    view: Option<&'a View>,
    history: Option<History<'a>>,
    /// The cart, with all coupons that are applied to it, named or not.
    cart: Option<Cow<'a, Cart>>,
    /// The amounts of the cart that the applied coupons leave.
    left: Option<CartAmounts>,
    others: &'a OtherOffers,
}

impl<'a> UserAssessor<'a> {
    pub fn new(
        user: &'a UserCouponState,
        view: Option<&'a View>,
        cart: Option<&'a Cart>,
        others: &'a OtherOffers,
    ) -> Self {
        let is_held = |coupon: &CouponId| user.held.iter().any(|held| held.coupon == *coupon);
        let applied: Vec<&Offer> = others
            .applied
            .iter()
            .filter(|offer| !is_held(&offer.coupon.id))
            .map(AsRef::as_ref)
            .collect();
        let left = cart.map(|cart| {
            let known = |coupon: &CouponId| {
                let offer = others.all.iter().find(|offer| offer.coupon.id == *coupon)?;
                Some(covered_lines(offer, cart, view))
            };
            left_by_applied(cart, view, &user.held, &applied, known)
        });
        Self {
            user,
            view,
            history: view.map(|view| History::of_user(view, &user.user.id)),
            cart: cart.map(|cart| with_held(cart, &user.held)),
            left,
            others,
        }
    }

    pub fn assess(&self, offer: &Offer, usage: &Usage, policy: &Policy) -> Assessment {
        let facts = AssessmentInput {
            offer,
            rules: &CompiledRules::new(offer, self.view, Users::One),
            user: &self.user.user,
            usage,
            is_scope_empty: self.cart.is_none() && self.view.is_some_and(|view| scope::is_empty(offer, view)),
            history: self.history.as_ref(),
            view: self.view,
            cart: self.cart.as_deref(),
            left: self.left.as_ref(),
            others: &self.others.all,
            now: self.user.now,
        };
        assess(&facts, policy)
    }

    /// Returns what `offer` takes off each line of the cart; nothing without a cart.
    pub fn shares(&self, offer: &Offer) -> Vec<(ItemId, i64)> {
        let (Some(cart), Some(left)) = (&self.cart, &self.left) else {
            return Vec::new();
        };
        shares(cart, &discount(offer, &covered_lines(offer, cart, self.view), left))
    }
}

/// Returns the cart with the coupons that hold a discount for it among the applied ones.
fn with_held<'a>(cart: &'a Cart, held: &[HeldDiscount]) -> Cow<'a, Cart> {
    let mut cart = Cow::Borrowed(cart);
    for HeldDiscount { coupon, .. } in held {
        if !cart.applied.contains(coupon) {
            cart.to_mut().applied.push(coupon.clone());
        }
    }
    cart
}

/// The offers that stand beside the assessed one.
pub(super) struct OtherOffers {
    /// See [`applied`].
    applied: Vec<Arc<Offer>>,
    /// The applied ones, and those that are reserved for the user or hold a discount for the cart.
    all: Vec<Arc<Offer>>,
}

impl OtherOffers {
    /// `applied`: see [`applied`].
    pub fn new(applied: Vec<Arc<Offer>>, user: &UserCouponState, offer_catalog: &OfferCatalog) -> Self {
        let reserved = user.user.reserved.iter().map(|(id, _)| id);
        let held = user.held.iter().map(|held| &held.coupon);
        let known = reserved.chain(held).filter_map(|id| offer_catalog.offer(id));
        let all = applied.iter().chain(known).cloned().collect();
        Self { applied, all }
    }
}

/// Returns the offers that `cart` names as applied, except for those that the caller may not see.
pub(super) fn applied(offer_catalog: &OfferCatalog, cart: Option<&Cart>, caller: &Caller) -> Vec<Arc<Offer>> {
    let named = cart.into_iter().flat_map(|cart| &cart.applied);
    named
        .filter_map(|id| offer_catalog.offer(id))
        .filter(|offer| caller.sees(offer.merchant()))
        .cloned()
        .collect()
}

/// Returns which parts of an assessment the caller may see.
pub(super) fn reader(caller: &Caller) -> Reader {
    match caller.role {
        Role::Operator | Role::Admin => Reader::Operator,
        Role::Marketer if caller.merchant.is_some() => Reader::Merchant,
        Role::Service | Role::Ingest | Role::Marketer => Reader::Other,
    }
}

/// Returns whether the offer may be on offer, by its definition, which may be a moment old.
fn may_be_on_offer(offer: &Offer) -> bool {
    match offer.campaign.state {
        CampaignState::Scheduled | CampaignState::Active | CampaignState::Paused => true,
        CampaignState::Draft | CampaignState::Ended => false,
    }
}

/// Returns false for a coupon that is unknown, a draft, ended, or assigned to others.
fn is_on_offer(assessment: &Assessment) -> bool {
    !assessment.failures.iter().any(|failure| {
        matches!(
            failure,
            Failure::CampaignDraft | Failure::CampaignEnded { .. } | Failure::CouponUnknown | Failure::NotAssigned
        )
    })
}

impl ListedCoupon {
    /// Orders by priority of the campaign, then affinity, then the end of the window, then id.
    fn rank(&self, other: &Self) -> std::cmp::Ordering {
        let (own, others) = (&self.offer.campaign, &other.offer.campaign);
        let by_priority = others.priority.cmp(&own.priority);
        by_priority
            .then(other.score.total_cmp(&self.score))
            .then(own.window.ends_at.cmp(&others.window.ends_at))
            .then_with(|| self.offer.coupon.id.cmp(&other.offer.coupon.id))
    }
}

fn affinity(view: &View, offer: &Offer, user: &UserId) -> f64 {
    let snapshot = &view.snapshot;
    let of_user = |user| affinity_of(snapshot, |item| is_covered(snapshot, offer, item), user);
    view.user(user).map_or(0.0, of_user)
}
