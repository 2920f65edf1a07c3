//! Is a user eligible for coupons, and which can they have? Definitions and history from memory, what changes with every
//! redemption from the database, in one query. First everything is gathered, then it is judged, without waiting for
//! anything.

use std::sync::Arc;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::eligibility::{self, UserCouponState};
use crate::store::coupons::exposures;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use coupons::affinity::{affinity_of, is_covered};
use coupons::eligibility::{Assessment, AssessmentInput, Failure, Policy, Reader, Usage, Verdict, assess, needs_view};
use coupons::offer_catalog::{Offer, OfferCatalog};
use coupons::rules::history::History;
use coupons::rules::{CompiledRules, Users};
use domain::access::{Caller, Role};
use domain::campaign::CampaignState;
use domain::consent::Purpose;
use domain::coupon::Cart;
use domain::id::{CouponId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::view::View;

/// What eligibility is judged with.
#[derive(Clone)]
pub struct EligibilityService {
    pub pool: Pool,
    pub live: Live,
    pub policy: Policy,
}

/// Which coupons are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, in this order.
    Named(Vec<CouponId>),
    /// All that are on offer to the user now.
    OnOffer,
}

#[derive(Debug, Clone)]
pub struct CheckRequest {
    pub user: UserId,
    pub coupons: Selection,
    pub cart: Option<Cart>,
    pub caller: Arc<Caller>,
}

#[derive(Debug, Clone)]
pub struct UserCouponsRequest {
    /// Of all that are on offer.
    pub check: CheckRequest,
    pub limit: usize,
    /// Whether the user's history may order the coupons.
    pub personalized: bool,
    /// Logs nothing as offered.
    pub preview: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EligibilityError {
    /// It cannot be said without knowing what the user did, or what the items are.
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EligibilityService {
    /// Everything that decides about what is asked.
    ///
    /// # Errors
    /// See [`EligibilityError`]; a coupon that there is not is no error, but a reason.
    pub async fn gather(&self, request: &CheckRequest) -> Result<Case, EligibilityError> {
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
        if view.is_none() && offers().any(|offer| needs_view(offer, request.cart.as_ref())) {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        let known: Vec<CouponId> = offers().map(|offer| offer.coupon.id.clone()).collect();
        let standing = eligibility::read(&self.pool, &request.user, &known, self.policy.exposure_window_days).await?;
        Ok(Case {
            others: others(&standing, &offer_catalog, request.cart.as_ref(), &request.caller),
            request: request.clone(),
            policy: self.policy,
            chosen,
            view,
            standing,
        })
    }

    /// Logs what is shown as offered, and what would be as held out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_exposures(&self, listed: &Listed) -> Result<(), StoreError> {
        exposures::log_of_user(&self.pool, &listed.user, listed.snapshot_version, &listed.exposures).await
    }

    /// The one coupon that is named, if there is such a one for the caller.
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
        if self.live.view().is_none() && needs_view(offer, Some(cart)) {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        Ok(Some(offer.clone()))
    }

    /// The definitions; read anew when something is asked for that is not among them.
    async fn offer_catalog_for(&self, coupons: &Selection) -> Result<Arc<OfferCatalog>, EligibilityError> {
        let offer_catalog = self.live.offer_catalog();
        let is_missing = |id: &CouponId| offer_catalog.offer(id).is_none();
        let may_be_old = match coupons {
            Selection::Named(ids) => ids.iter().any(is_missing),
            // As after a start, before it was read for the first time.
            Selection::OnOffer => offer_catalog.offers().next().is_none(),
        };
        if may_be_old {
            self.live.refresh_offer_catalog().await?;
            return Ok(self.live.offer_catalog());
        }
        Ok(offer_catalog)
    }
}

/// A user and the coupons that are asked about, at one moment: to be judged.
pub struct Case {
    request: CheckRequest,
    policy: Policy,
    /// `None` for a coupon that there is not, or not for this caller.
    chosen: Vec<(CouponId, Option<Arc<Offer>>)>,
    view: Option<Arc<View>>,
    standing: UserCouponState,
    others: Vec<Arc<Offer>>,
}

#[derive(Debug, Clone)]
pub struct Checked {
    /// 0 while no snapshot is loaded.
    pub snapshot_version: i64,
    /// The moment that the answer is about.
    pub checked_at: Timestamp,
    pub coupons: Vec<CheckedCoupon>,
}

#[derive(Debug, Clone)]
pub struct CheckedCoupon {
    pub coupon: CouponId,
    /// `None` for a coupon that there is not, or not for this caller.
    pub offer: Option<Arc<Offer>>,
    /// As the caller may see it.
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
    /// To be logged: coupons that the user is exposed to for the first time, and whether held out of them.
    pub exposures: Vec<(CouponId, bool)>,
}

#[derive(Debug, Clone)]
pub struct ListedCoupon {
    pub offer: Arc<Offer>,
    pub verdict: Verdict,
    /// Affinity; 0 without personalization.
    pub score: f64,
    pub discount_minor: Option<i64>,
}

impl Case {
    /// About how many multiply-adds it takes to judge it.
    pub fn work(&self) -> usize {
        /// As long as looking up one name.
        const NAME: usize = 200;
        /// As long as looking whether one item is covered.
        const CHECK: usize = 10;
        let cart = self.request.cart.as_ref().map_or(0, |cart| cart.lines.len() * NAME);
        let history = self.view.as_ref().map_or(0, |view| {
            let index = view.user(&self.request.user);
            let rated = index.map_or(0, |user| view.snapshot.ratings().row_range(user.at()).len());
            rated * view.snapshot.parameters().options.neighbors * CHECK
        });
        self.chosen.len() * (NAME + cart + history)
    }

    /// Judges every coupon that is asked about.
    pub fn check(&self) -> Checked {
        let reader = reader(&self.request.caller);
        let coupons = self.assess_all().map(|coupon| CheckedCoupon {
            assessment: coupon.assessment.for_reader(reader),
            ..coupon
        });
        let coupons = match self.request.coupons {
            Selection::Named(_) => coupons.collect(),
            Selection::OnOffer => coupons.filter(|coupon| is_on_offer(&coupon.assessment)).collect(),
        };
        Checked {
            snapshot_version: self.snapshot_version(),
            checked_at: self.standing.now,
            coupons,
        }
    }

    /// The coupons that the user can have, best first.
    pub fn list(&self, request: &UserCouponsRequest) -> Listed {
        let may_profile = self
            .policy
            .privacy
            .allows(self.standing.user.consents, Purpose::Profiling);
        let personalized = request.personalized && may_profile;
        let view = self.view.as_deref().filter(|_| personalized);
        // Both arms in one order: held out counts what would have been shown.
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
        let recent = &self.standing.user.recent_exposures;
        let mut room = self
            .policy
            .max_exposures
            .map(|max| (max as usize).saturating_sub(recent.len()));
        let (mut coupons, mut exposures) = (Vec::new(), Vec::new());
        for (coupon, is_held_out) in ranked {
            if coupons.len() == request.limit {
                break;
            }
            let id = &coupon.offer.coupon.id;
            if let Some(room) = room.as_mut().filter(|_| !recent.contains(id)) {
                let Some(less) = room.checked_sub(1) else { continue };
                *room = less;
            }
            if !request.preview && !self.standing.exposed.contains(id) {
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
            exposures,
        }
    }

    fn snapshot_version(&self) -> i64 {
        self.view.as_ref().map_or(0, |view| view.version)
    }

    /// As an operator sees it.
    fn assess_all(&self) -> impl Iterator<Item = CheckedCoupon> {
        let subject = Subject::new(
            &self.standing,
            self.view.as_deref(),
            self.request.cart.as_ref(),
            &self.others,
        );
        self.chosen.iter().map(move |(coupon, offer)| CheckedCoupon {
            assessment: match (offer, self.standing.usages.get(coupon)) {
                (Some(offer), Some(usage)) => subject.assess(offer, usage, &self.policy),
                _ => Assessment::unknown_coupon(),
            },
            coupon: coupon.clone(),
            offer: offer.clone(),
        })
    }
}

/// A user, their history and their cart, to be judged for one coupon after the other.
pub(super) struct Subject<'a> {
    standing: &'a UserCouponState,
    view: Option<&'a View>,
    history: Option<History<'a>>,
    cart: Option<&'a Cart>,
    others: &'a [Arc<Offer>],
}

impl<'a> Subject<'a> {
    /// `others`: see [`others`].
    pub fn new(
        standing: &'a UserCouponState,
        view: Option<&'a View>,
        cart: Option<&'a Cart>,
        others: &'a [Arc<Offer>],
    ) -> Self {
        Self {
            standing,
            view,
            history: view.map(|view| History::of_user(view, &standing.user.id)),
            cart,
            others,
        }
    }

    pub fn assess(&self, offer: &Offer, usage: &Usage, policy: &Policy) -> Assessment {
        let facts = AssessmentInput {
            offer,
            rules: &CompiledRules::new(offer, self.view, Users::One),
            user: &self.standing.user,
            usage,
            history: self.history.as_ref(),
            view: self.view,
            cart: self.cart,
            others: self.others,
            now: self.standing.now,
        };
        assess(&facts, policy)
    }
}

/// Offers that stand beside the one that is judged: applied in the cart, of which none is known that the caller may not
/// name, or reserved for the user.
pub(super) fn others(
    standing: &UserCouponState,
    offer_catalog: &OfferCatalog,
    cart: Option<&Cart>,
    caller: &Caller,
) -> Vec<Arc<Offer>> {
    let applied = cart.into_iter().flat_map(|cart| &cart.applied);
    let applied = applied
        .filter_map(|id| offer_catalog.offer(id))
        .filter(|offer| caller.sees(offer.merchant()));
    let reserved = standing
        .user
        .reserved
        .iter()
        .filter_map(|(id, _)| offer_catalog.offer(id));
    applied.chain(reserved).cloned().collect()
}

/// What of an assessment the caller may know.
pub(super) fn reader(caller: &Caller) -> Reader {
    match caller.role {
        Role::Operator | Role::Admin => Reader::Operator,
        Role::Marketer if caller.merchant.is_some() => Reader::Merchant,
        Role::Service | Role::Ingest | Role::Marketer => Reader::Other,
    }
}

/// By its definition, which may be a moment old.
fn may_be_on_offer(offer: &Offer) -> bool {
    match offer.campaign.state {
        CampaignState::Scheduled | CampaignState::Active | CampaignState::Paused => true,
        CampaignState::Draft | CampaignState::Ended => false,
    }
}

/// Not what is over, has not begun to be, or is for others.
fn is_on_offer(assessment: &Assessment) -> bool {
    !assessment.failures.iter().any(|failure| {
        matches!(
            failure,
            Failure::CampaignDraft | Failure::CampaignEnded { .. } | Failure::CouponUnknown | Failure::NotAssigned
        )
    })
}

impl ListedCoupon {
    /// By priority of the campaign, then affinity, then the end of the window, then id.
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
