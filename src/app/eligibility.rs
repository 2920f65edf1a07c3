//! Is a user eligible for coupons, and which can they have? Definitions and history from memory, what changes with every
//! redemption from the database, in two queries.

use std::sync::Arc;

use crate::coupon::affinity::{affinity_of, is_covered};
use crate::coupon::book::{Book, Offer};
use crate::coupon::eligibility::{Assessment, Facts, Failure, Policy, Reader, Usage, Verdict, assess};
use crate::coupon::rules::{CompiledRules, History, Users};
use crate::domain::access::{Caller, Role};
use crate::domain::consent::Purpose;
use crate::domain::coupon::{CampaignState, Cart, Rule};
use crate::domain::id::{CouponId, UserId};
use crate::domain::time::Timestamp;
use crate::live::{Live, ServingStatus};
use crate::model::view::View;
use crate::store::eligibility::{Standing, standing};
use crate::store::error::StoreError;
use crate::store::exposures;
use crate::store::pool::Pool;

/// What eligibility is judged with.
#[derive(Clone)]
pub struct Judge {
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

#[derive(Debug, thiserror::Error)]
pub enum EligibilityError {
    /// A rule needs to know what the user did.
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error("the work ended with a panic")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Judge {
    /// Judges every coupon that is asked about.
    ///
    /// # Errors
    /// See [`EligibilityError`]; a coupon that there is not is no error, but a reason.
    pub async fn check(&self, request: &CheckRequest) -> Result<Checked, EligibilityError> {
        let assessed = self.assess_all(request).await?;
        let reader = reader(&request.caller);
        let coupons = assessed.coupons.into_iter().map(|coupon| CheckedCoupon {
            assessment: coupon.assessment.for_reader(reader),
            ..coupon
        });
        let coupons = match request.coupons {
            Selection::Named(_) => coupons.collect(),
            Selection::OnOffer => coupons.filter(|coupon| is_on_offer(&coupon.assessment)).collect(),
        };
        Ok(Checked {
            coupons,
            ..assessed.checked
        })
    }

    /// As [`Self::check`], but everything as an operator sees it.
    async fn assess_all(&self, request: &CheckRequest) -> Result<Assessed, EligibilityError> {
        let book = self.book_for(&request.coupons).await?;
        let sees = |offer: &&Arc<Offer>| request.caller.sees(offer.merchant());
        let chosen: Vec<(CouponId, Option<Arc<Offer>>)> = match &request.coupons {
            Selection::Named(ids) => ids
                .iter()
                .map(|id| (id.clone(), book.offer(id).filter(sees).cloned()))
                .collect(),
            Selection::OnOffer => book
                .offers()
                .filter(sees)
                .filter(|offer| may_be_on_offer(offer))
                .map(|offer| (offer.coupon.id.clone(), Some(offer.clone())))
                .collect(),
        };
        let view = self.live.view();
        let offers = || chosen.iter().filter_map(|(_, offer)| offer.as_ref());
        if view.is_none() && offers().any(|offer| offer.coupon.rules.iter().any(Rule::needs_history)) {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        let known: Vec<CouponId> = offers().map(|offer| offer.coupon.id.clone()).collect();
        let standing = standing(&self.pool, &request.user, &known, self.policy.exposure_window_days).await?;
        let subject = Subject::new(&standing, &book, view.as_deref(), request.cart.as_ref());
        let coupons = chosen.into_iter().map(|(coupon, offer)| {
            let usage = standing.usages.get(&coupon);
            let assessment = match (&offer, usage) {
                (Some(offer), Some(usage)) => subject.assess(offer, usage, &self.policy),
                _ => Assessment::unknown_coupon(),
            };
            CheckedCoupon {
                coupon,
                offer,
                assessment,
            }
        });
        Ok(Assessed {
            coupons: coupons.collect(),
            checked: Checked {
                snapshot_version: view.as_ref().map_or(0, |view| view.version),
                checked_at: standing.now,
                coupons: Vec::new(),
            },
            view,
            standing,
        })
    }

    /// The one coupon that is named, if there is such a one for the caller.
    pub(super) async fn named_offer(
        &self,
        coupon: &CouponId,
        caller: &Caller,
    ) -> Result<Option<Arc<Offer>>, EligibilityError> {
        let book = self.book_for(&Selection::Named(vec![coupon.clone()])).await?;
        let offer = book.offer(coupon).filter(|offer| caller.sees(offer.merchant()));
        let Some(offer) = offer else { return Ok(None) };
        if self.live.view().is_none() && offer.coupon.rules.iter().any(Rule::needs_history) {
            return Err(EligibilityError::NoSnapshot(self.live.status()));
        }
        Ok(Some(offer.clone()))
    }

    /// The definitions; read anew when something is asked for that is not among them.
    async fn book_for(&self, coupons: &Selection) -> Result<Arc<Book>, EligibilityError> {
        let book = self.live.book();
        let is_missing = |id: &CouponId| book.offer(id).is_none();
        if matches!(coupons, Selection::Named(ids) if ids.iter().any(is_missing)) {
            self.live.refresh_book().await?;
            return Ok(self.live.book());
        }
        Ok(book)
    }

    /// The coupons that the user can have, best first; in both arms they are logged as offered unless it is a preview.
    pub async fn list(&self, request: &ListRequest) -> Result<Listed, EligibilityError> {
        let check = CheckRequest {
            user: request.user.clone(),
            coupons: Selection::OnOffer,
            cart: request.cart.clone(),
            caller: request.caller.clone(),
        };
        let Assessed {
            coupons,
            checked,
            view,
            standing,
        } = self.assess_all(&check).await?;
        let personalized =
            request.personalized && self.policy.privacy.allows(standing.user.consents, Purpose::Profiling);
        let (mut offered, held_out): (Vec<_>, Vec<_>) = coupons
            .into_iter()
            .filter(|coupon| coupon.assessment.is_target() || coupon.assessment.is_held_out_target())
            .filter_map(|coupon| {
                let offer = coupon.offer?;
                Some((offer, coupon.assessment))
            })
            .partition(|(_, assessment)| assessment.is_target());
        let user = request.user.clone();
        let scored_view = view.filter(|_| personalized);
        // Off the async workers: every coupon goes through the history.
        let mut coupons = tokio::task::spawn_blocking(move || {
            let score = |offer: &Offer| scored_view.as_ref().map_or(0.0, |view| affinity(view, offer, &user));
            let coupon = |(offer, assessment): (Arc<Offer>, Assessment)| ListedCoupon {
                score: score(&offer),
                verdict: assessment.verdict,
                discount_minor: assessment.discount_minor,
                offer,
            };
            let mut coupons: Vec<ListedCoupon> = offered.drain(..).map(coupon).collect();
            coupons.sort_by(ListedCoupon::rank);
            coupons
        })
        .await
        .map_err(|_| EligibilityError::Panicked)?;
        coupons.truncate(request.limit);
        if !request.preview {
            let shown = coupons.iter().map(|coupon| (coupon.offer.coupon.id.clone(), false));
            let kept_back = held_out.iter().map(|(offer, _)| (offer.coupon.id.clone(), true));
            let new: Vec<_> = shown
                .chain(kept_back)
                .filter(|(id, _)| !standing.exposed.contains(id))
                .collect();
            exposures::log_of_user(&self.pool, &request.user, checked.snapshot_version, &new).await?;
        }
        Ok(Listed {
            snapshot_version: checked.snapshot_version,
            personalized,
            coupons,
        })
    }
}

struct Assessed {
    coupons: Vec<CheckedCoupon>,
    /// Without the coupons.
    checked: Checked,
    view: Option<Arc<View>>,
    standing: Standing,
}

/// A user, their history and their cart, to be judged for one coupon after the other.
pub(super) struct Subject<'a> {
    standing: &'a Standing,
    view: Option<&'a View>,
    history: Option<History<'a>>,
    cart: Option<&'a Cart>,
    others: Vec<Arc<Offer>>,
}

impl<'a> Subject<'a> {
    pub fn new(standing: &'a Standing, book: &Book, view: Option<&'a View>, cart: Option<&'a Cart>) -> Self {
        let applied = cart.iter().flat_map(|cart| &cart.applied);
        let reserved = standing.user.reserved.iter().map(|(coupon, _)| coupon);
        Self {
            standing,
            view,
            history: view.map(|view| History::of_user(view, &standing.user.id)),
            cart,
            others: applied
                .chain(reserved)
                .filter_map(|id| book.offer(id).cloned())
                .collect(),
        }
    }

    pub fn assess(&self, offer: &Offer, usage: &Usage, policy: &Policy) -> Assessment {
        let facts = Facts {
            offer,
            rules: &CompiledRules::new(offer, self.view, Users::One),
            user: &self.standing.user,
            usage,
            history: self.history.as_ref(),
            view: self.view,
            cart: self.cart,
            others: &self.others,
            now: self.standing.now,
        };
        assess(&facts, policy)
    }
}

/// Who may know that a user is held out.
pub(super) fn reader(caller: &Caller) -> Reader {
    match caller.role {
        Role::Operator | Role::Admin => Reader::Operator,
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

#[derive(Debug, Clone)]
pub struct ListRequest {
    pub user: UserId,
    pub cart: Option<Cart>,
    pub limit: usize,
    /// Whether the user's history may order the coupons.
    pub personalized: bool,
    /// Logs nothing as offered.
    pub preview: bool,
    pub caller: Arc<Caller>,
}

#[derive(Debug, Clone)]
pub struct Listed {
    pub snapshot_version: i64,
    /// Whether the user's history was used.
    pub personalized: bool,
    /// Best first.
    pub coupons: Vec<ListedCoupon>,
}

#[derive(Debug, Clone)]
pub struct ListedCoupon {
    pub offer: Arc<Offer>,
    pub verdict: Verdict,
    /// Affinity; 0 without personalization.
    pub score: f64,
    pub discount_minor: Option<i64>,
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
