//! A small training input with past campaigns: users who redeem and users who do not.

use domain::campaign::Window;
use domain::id::CampaignId;
use domain::time::Timestamp;
use recommender::snapshot::catalog::Catalog;
use recommender::snapshot::consents::ConsentRecords;
use recommender::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use recommender::training::input::{CampaignHistory, OrderEvent, RedemptionEvent, TrainingInput};

pub const USERS: u32 = 60;
const ITEMS: u32 = 8;

/// Returns midnight, `day` days after the epoch.
pub fn day(day: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + chrono::Duration::days(day)
}

/// Returns sixty users and `campaigns` past campaigns.
///
/// The users order from day 0 on, every third with coupons. The campaigns of ten days start on day 20, 40, 60, …; each is for
/// everybody. About two thirds of the users with coupons redeem it, and few of the others.
pub fn past(campaigns: u32) -> TrainingInput {
    let mut orders = Vec::new();
    for user in 0..USERS {
        for order in 0..i64::from(20 * (campaigns + 1)) / 5 {
            orders.push(OrderEvent {
                user: UserIndex(user),
                item: ItemIndex((user + order as u32 * (1 + user % 2)) % ITEMS),
                ordered_at: day(order * 5),
                quantity: 1,
                total_minor: i64::from(100 * (user % 7)),
                discounted_lines: u32::from(user % 3 == 0),
            });
        }
    }
    TrainingInput {
        users: ids("u", USERS),
        items: ids("i", ITEMS),
        catalog: Catalog::default(),
        ratings: Vec::new(),
        orders,
        coupon_uses: Vec::new(),
        returns: Vec::new(),
        consents: ConsentRecords::default(),
        campaigns: (0..campaigns).map(campaign).collect(),
        as_of: day(10_000),
    }
}

fn campaign(at: u32) -> CampaignHistory {
    let start = day(20 * i64::from(at + 1));
    let redeems =
        |user: u32| (user.is_multiple_of(3) && !(user / 3 + at).is_multiple_of(3)) || (user + 7 * at) % 20 == 1;
    CampaignHistory {
        id: CampaignId::new(format!("c{at:02}")).unwrap(),
        window: Window::new(start, start + chrono::Duration::days(10)).unwrap(),
        items: vec![ItemIndex(at % ITEMS), ItemIndex((at + 3) % ITEMS)],
        recipients: (0..USERS).map(UserIndex).collect(),
        redemptions: (0..USERS)
            .filter(|&user| redeems(user))
            .map(|user| RedemptionEvent {
                user: UserIndex(user),
                redeemed_at: start + chrono::Duration::hours(i64::from(1 + 3 * user)),
            })
            .collect(),
    }
}

fn ids<I: recommender::snapshot::dictionary::DenseIndex>(prefix: &str, count: u32) -> Dictionary<I> {
    Dictionary::new((0..count).map(|index| format!("{prefix}{index:02}")).collect()).unwrap()
}
