//! The phases of a training run and its progress.

use std::sync::Arc;

use recommender::training::fit::Stage;

/// The phases of a run, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Reading,
    /// Fitting on the earlier part of the history and measuring on the later part.
    Evaluating,
    /// Computing effective ratings from ratings and purchases.
    Rating,
    Fitting(Stage),
    /// Validating the model as a server would, and fitting the propensity.
    Checking,
    /// Fitting the demand of items on their weekly sales.
    Demand,
    Writing,
    Activating,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Evaluating => "evaluating",
            Self::Rating => "effective ratings",
            Self::Fitting(Stage::Biases) => "biases",
            Self::Fitting(Stage::ItemNeighbors) => "item neighbors",
            Self::Fitting(Stage::UserNeighbors) => "user neighbors",
            Self::Checking => "checking",
            Self::Demand => "demand",
            Self::Writing => "writing",
            Self::Activating => "activating",
        }
    }
}

/// How far a phase has come. Reported when the phase begins and while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub done: u64,
    /// 0 if it is not known.
    pub total: u64,
}

impl Progress {
    pub(super) fn begin(phase: Phase) -> Self {
        Self {
            phase,
            done: 0,
            total: 0,
        }
    }
}

/// Receives the progress, from any thread.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;
