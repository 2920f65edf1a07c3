//! Fits the demand of items on the sales that were read.

use crate::store::snapshots::training::sales::Sales;
use demand::model::{DatedHistory, Demand, DemandModel, NoSales};
use domain::time::Timestamp;

/// Fits everything, or says why there is nothing to fit on. Takes long, so that it must not run on an async worker.
pub fn fit(mut sales: Sales, n_items: usize, as_of: Timestamp) -> Demand {
    let fitted = dated(&mut sales, n_items, as_of).and_then(|dated| {
        let DatedHistory {
            first_week,
            origin,
            history,
        } = dated;
        DemandModel::fit(history, first_week, origin, sales.left_out_share)
    });
    match fitted {
        Ok(model) => {
            let (lines, weeks) = (model.history.weeks().len(), model.origin);
            tracing::info!(
                lines,
                weeks,
                "fitted the demand of items on {lines} order lines of {weeks} weeks"
            );
            Demand::Fitted(Box::new(model))
        }
        Err(error) => Demand::NotFitted {
            reason: error.to_string(),
        },
    }
}

/// Sorts the recorded lines into weeks.
///
/// # Errors
/// [`NoSales`] without any line.
pub fn dated(sales: &mut Sales, n_items: usize, as_of: Timestamp) -> Result<DatedHistory, NoSales> {
    DatedHistory::new(&mut sales.lines, n_items, &sales.stock_outs, as_of.timestamp())
}
