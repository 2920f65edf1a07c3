//! The part `demand`, optional: the weekly sales of the n items and what was fitted on them, or the reason why there is
//! nothing.
//!
//! | column | contents |
//! |---|---|
//! | 8 bytes | 1: all that follows; 0: only the last column, a JSON string with the reason |
//! | 8 bytes | the ISO week of week 0, counted from that of 1970-01-01, two's complement |
//! | 8 bytes | weeks that were over |
//! | 8 bytes | weeks of the history: these, and that which was not over |
//! | lengths, n | order lines of each item |
//! | integers | the week of each line, ascending within an item |
//! | floats | the units of each line |
//! | integers | the line of each return, ascending |
//! | integers | the week of each return |
//! | floats | the units of each return |
//! | integers | the item of each week without stock, ascending |
//! | integers | that week |
//! | the rest | what was fitted, as JSON |

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use ::demand::history::{Return, SalesColumns, SalesHistory, StockOut};
use ::demand::model::{Demand, DemandModel};

pub(in crate::snapshot) struct DemandPart;

const FITTED: u64 = 1;
const NOT_FITTED: u64 = 0;

impl Part for DemandPart {
    const NAME: &'static str = "demand";

    type Contents = Optional<Demand>;

    /// Order lines of an item are not told apart by user.
    const REDACT: Option<Redact<Self::Contents>> = None;

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.demand.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        match &parts.demand {
            Optional::Present(Demand::Fitted(model)) => encode(model, to),
            Optional::Present(Demand::NotFitted { reason }) => {
                to.u64(NOT_FITTED);
                to.json(reason);
            }
            Optional::Missing(_) => {}
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let demand = match from.u64("state")? {
            NOT_FITTED => Demand::NotFitted { reason: from.json()? },
            FITTED => Demand::Fitted(Box::new(decode(from)?)),
            _ => return Err(from.invalid("state", "is neither 0 nor 1")),
        };
        Ok(Optional::Present(demand))
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let Ok(Demand::Fitted(model)) = parts.demand.get() else {
            return Ok(());
        };
        check_length("demand", parts.items.len(), model.history.n_items())?;
        match model.problem() {
            Some(_) => Err(SnapshotError::Value { part: Self::NAME }),
            None => Ok(()),
        }
    }
}

fn encode(model: &DemandModel, to: &mut Writer) {
    let history = &model.history;
    to.u64(FITTED);
    to.u64(model.first_week as u64);
    to.u64(model.origin as u64);
    to.u64(history.n_weeks() as u64);
    let offsets: Vec<u64> = history.offsets().iter().map(|&offset| offset as u64).collect();
    to.lengths(&offsets);
    to.integers(history.weeks().iter().map(|&week| u64::from(week)));
    to.floats(history.quantities());
    let returns = history.returns();
    to.integers(returns.iter().map(|returned| returned.sale as u64));
    to.integers(returns.iter().map(|returned| u64::from(returned.week)));
    let quantities: Vec<f32> = returns.iter().map(|returned| returned.quantity).collect();
    to.floats(&quantities);
    to.integers(history.stock_outs().iter().map(|out| u64::from(out.item)));
    to.integers(history.stock_outs().iter().map(|out| u64::from(out.week)));
    to.json(&model.fitted);
}

fn decode(from: &mut Reader<'_>) -> Result<DemandModel, CodecError> {
    let first_week = from.u64("first week")? as i64;
    let origin = from.size("weeks that were over")?;
    let n_weeks = from.size("weeks of the history")?;
    let offsets = from.offsets("lines of each item")?;
    let weeks = from.u16s("weeks of lines")?;
    let quantities = from.floats("units of lines")?.into_vec();
    let returned_lines = from.u64s("lines of returns")?;
    let returned_weeks = from.u16s("weeks of returns")?;
    let returned_units = from.floats("units of returns")?.into_vec();
    let out_items = from.u32s("items without stock")?;
    let out_weeks = from.u16s("weeks without stock")?;
    if returned_lines.len() != returned_weeks.len() || returned_lines.len() != returned_units.len() {
        return Err(from.invalid("returns", "have columns of different lengths"));
    }
    if out_items.len() != out_weeks.len() {
        return Err(from.invalid("weeks without stock", "have columns of different lengths"));
    }
    let returned = returned_lines.into_iter().zip(returned_weeks).zip(returned_units);
    let columns = SalesColumns {
        offsets: offsets.into_iter().map(|offset| offset as usize).collect(),
        weeks,
        quantities,
        returns: returned
            .map(|((sale, week), quantity)| Return {
                sale: sale as usize,
                week,
                quantity,
            })
            .collect(),
        stock_outs: out_items
            .into_iter()
            .zip(out_weeks)
            .map(|(item, week)| StockOut { item, week })
            .collect(),
    };
    let history = SalesHistory::from_columns(n_weeks, columns);
    let history = history.map_err(|_| from.invalid("sales", "have columns that do not fit one another"))?;
    Ok(DemandModel {
        first_week,
        origin,
        history,
        fitted: from.json()?,
    })
}
