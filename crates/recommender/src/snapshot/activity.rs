//! What users have done before one moment, in figures.

/// Every column has an entry for each of m users.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Activity {
    /// Nothing later is counted: in seconds since 1970; 0 without anything done.
    pub as_of: i64,
    /// Distinct orders with something bought in them.
    pub orders: Vec<u32>,
    /// Sum of all line totals, in minor units, returns taken off; of whatever currency.
    pub spend_minor: Vec<i64>,
    /// When the last order was made, in seconds since 1970; 0 without orders.
    pub last_order_at: Vec<i64>,
    /// Order lines on which a coupon took something off.
    pub discounted_lines: Vec<u32>,
    /// Coupons redeemed and not given back.
    pub redemptions: Vec<u32>,
    /// Campaigns that the user was assigned to or exposed to.
    pub campaigns: Vec<u32>,
}

impl Activity {
    /// Of `m` users that have done nothing.
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

    /// The lengths of all columns.
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
