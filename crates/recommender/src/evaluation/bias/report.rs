//! The figures of the bias report, as they are stored with a snapshot.

/// The figures of one ranker on new items of the test part.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankerBias {
    pub ranker: String,
    /// The number of first items of every list that were measured.
    pub top: u32,
    /// The number of users with a list.
    pub users: u64,
    /// Mean NDCG at `top`, 0 to 1.
    pub ndcg: f64,
    /// The share of users with a relevant item among the first `top`.
    pub hit_rate: f64,
    pub exposure: Exposure,
    /// Niche, mixed and mainstream users; a group that is too small is missing.
    pub popularity_groups: Vec<PopularityGroup>,
    /// Users by the length of their history, shortest first; a quartile that is too small is missing.
    pub activity_quartiles: Vec<ActivityQuartile>,
    /// `None` where no history has an item with a category.
    pub calibration: Option<Calibration>,
    pub merchants: Merchants,
    pub attributes: Vec<AttributeBias>,
}

/// How often items are shown.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Exposure {
    /// The Gini index of how often each listed item is shown: 0 if even, toward 1 if concentrated.
    pub gini: f64,
    /// The share of the listed items that are shown at all.
    pub coverage: f64,
    /// The mean number of users of the items that are shown.
    pub mean_popularity: f64,
    pub long_tail: LongTail,
}

/// The items that make the last 20 % of all ratings.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LongTail {
    pub items: u64,
    /// Their share of all places in the lists.
    pub exposure_share: f64,
    /// Their share of all ratings, at most 0.2.
    pub rating_share: f64,
}

/// How much of their history is popular items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PopularityTaste {
    /// The fifth of the users with the least share of popular items.
    Niche,
    Mixed,
    /// The fifth with the largest share.
    Mainstream,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PopularityGroup {
    pub group: PopularityTaste,
    pub users: u64,
    /// The mean over users of the mean number of users of the items in their history.
    pub history_popularity: f64,
    /// The same of the items that they are shown.
    pub shown_popularity: f64,
    /// `shown_popularity / history_popularity − 1`: above 0 where lists are more popular than tastes. `None` where nobody has rated
    /// the items of the histories, as purchases may be no ratings.
    pub popularity_lift: Option<f64>,
    pub ndcg: f64,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ActivityQuartile {
    /// 1 for the shortest histories, 4 for the longest.
    pub quartile: u32,
    pub users: u64,
    pub ndcg: f64,
}

/// How far the categories of lists are from those of histories.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Calibration {
    /// The users with a category in their history.
    pub users: u64,
    /// The mean divergence C_KL, 0 or more; 0 where every list has the proportions of the history.
    pub divergence: f64,
}

/// How often merchants are shown against what they offer and sell.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Merchants {
    /// The merchants with a listed item.
    pub merchants: u64,
    /// The largest of them by catalog share, at most 50.
    pub largest: Vec<MerchantExposure>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MerchantExposure {
    pub merchant_id: String,
    /// The share of the places in the lists that items of merchants have.
    pub exposure_share: f64,
    /// The share of the listed items that have a merchant.
    pub catalog_share: f64,
    /// The share of the orders of items that have a merchant; `None` without orders.
    pub sales_share: Option<f64>,
    /// `exposure_share / catalog_share`.
    pub exposure_per_catalog_share: f64,
    /// `exposure_share / sales_share`; `None` without sales.
    pub exposure_per_sales_share: Option<f64>,
}

/// The groups of users that one attribute makes.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AttributeBias {
    pub attribute: String,
    /// By value. Groups that are too small to be shown are missing.
    pub groups: Vec<AttributeGroup>,
    /// The groups that are not shown, and the users without a value, have this many users together.
    pub hidden_users: u64,
    /// `None` with fewer than two groups, or where the most favored has 0.
    pub ndcg_ratio: Option<GroupRatio>,
    pub hit_rate_ratio: Option<GroupRatio>,
    pub selection_rate_ratio: Option<GroupRatio>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AttributeGroup {
    pub value: String,
    pub users: u64,
    pub ndcg: f64,
    pub hit_rate: f64,
    /// The share of users who get a list of their own rather than the most popular items.
    pub selection_rate: f64,
}

/// The figure of the least favored group over that of the most favored.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GroupRatio {
    pub least_favored: String,
    pub most_favored: String,
    /// In [0, 1].
    pub ratio: f64,
    /// The limits of a 95 % interval for the ratio of these two groups. Above 1 the other group would be ahead.
    pub low: f64,
    pub high: f64,
}
