//! Figures about the activity of users up to one moment.

/// Counts and sums by user; every column has an entry for each of m users.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Activity {
    /// The moment up to which activity is counted, in seconds since 1970; 0 without any activity.
    pub as_of: i64,
    /// Distinct orders with something bought in them.
    pub orders: Vec<u32>,
    /// Sum of all line totals, in minor units, less returns; currencies are not told apart.
    pub spend_minor: Vec<i64>,
    /// The time of the last order, in seconds since 1970; 0 without orders.
    pub last_order_at: Vec<i64>,
    /// Order lines that a coupon discounted.
    pub discounted_lines: Vec<u32>,
    /// Coupons redeemed and not given back.
    pub redemptions: Vec<u32>,
    /// Campaigns that the user was assigned to or exposed to.
    pub campaigns: Vec<u32>,
}

impl Activity {
    /// Makes the activity of `m` users who have done nothing.
    pub fn none(m: usize, as_of: i64) -> Self {
        Self {
            as_of,
            orders: vec![0; m],
            spend_minor: vec![0; m],
            last_order_at: vec![0; m],
            discounted_lines: vec![0; m],
            redemptions: vec![0; m],
            campaigns: vec![0; m],
        }
    }

    /// Returns the lengths of all columns.
    pub fn lengths(&self) -> [usize; 6] {
        [
            self.orders.len(),
            self.spend_minor.len(),
            self.last_order_at.len(),
            self.discounted_lines.len(),
            self.redemptions.len(),
            self.campaigns.len(),
        ]
    }
}
