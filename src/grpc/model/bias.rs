//! Converts the bias report.

use tonic::Status;

use crate::store::snapshots::SnapshotRecord;
use recommender::evaluation::bias::report::{
    ActivityQuartile, AttributeBias, AttributeGroup, GroupRatio, MerchantExposure, PopularityGroup, PopularityTaste,
    RankerBias,
};

use super::convert;
use crate::grpc::proto::v1;
use crate::grpc::status::not_found;

/// Returns the version of the request; `None` for the active snapshot.
pub fn requested_version(version: i64) -> Result<Option<i64>, Status> {
    match version {
        0 => Ok(None),
        version => convert::version(version).map(Some),
    }
}

pub fn no_snapshot(version: Option<i64>) -> Status {
    let message = match version {
        Some(version) => format!("there is no snapshot {version}"),
        None => "no snapshot is active".to_owned(),
    };
    not_found("SNAPSHOT_NOT_FOUND", message)
}

pub fn report(record: SnapshotRecord) -> v1::GetBiasReportResponse {
    let (choice, bias) = record
        .evaluation
        .map_or((None, Vec::new()), |evaluation| (evaluation.choice, evaluation.bias));
    v1::GetBiasReportResponse {
        snapshot_version: record.version,
        chosen_ranker: choice.map_or(String::new(), |choice| choice.ranker),
        rankers: bias.into_iter().map(Into::into).collect(),
    }
}

impl From<RankerBias> for v1::RankerBias {
    fn from(bias: RankerBias) -> Self {
        let tail = bias.exposure.long_tail;
        Self {
            ranker: bias.ranker,
            top: bias.top,
            users: bias.users,
            ndcg: bias.ndcg,
            hit_rate: bias.hit_rate,
            gini: bias.exposure.gini,
            coverage: bias.exposure.coverage,
            mean_popularity: bias.exposure.mean_popularity,
            long_tail: Some(v1::LongTail {
                items: tail.items,
                exposure_share: tail.exposure_share,
                rating_share: tail.rating_share,
            }),
            popularity_groups: bias.popularity_groups.into_iter().map(Into::into).collect(),
            activity_quartiles: bias.activity_quartiles.into_iter().map(Into::into).collect(),
            calibration: bias.calibration.map(|calibration| v1::CategoryCalibration {
                users: calibration.users,
                divergence: calibration.divergence,
            }),
            merchant_count: bias.merchants.merchants,
            merchants: bias.merchants.largest.into_iter().map(Into::into).collect(),
            attributes: bias.attributes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PopularityGroup> for v1::PopularityGroup {
    fn from(group: PopularityGroup) -> Self {
        let taste = match group.group {
            PopularityTaste::Niche => v1::PopularityTaste::Niche,
            PopularityTaste::Mixed => v1::PopularityTaste::Mixed,
            PopularityTaste::Mainstream => v1::PopularityTaste::Mainstream,
        };
        Self {
            group: taste.into(),
            users: group.users,
            history_popularity: group.history_popularity,
            shown_popularity: group.shown_popularity,
            popularity_lift: group.popularity_lift.unwrap_or(0.0),
            ndcg: group.ndcg,
        }
    }
}

impl From<ActivityQuartile> for v1::ActivityQuartile {
    fn from(row: ActivityQuartile) -> Self {
        Self {
            quartile: row.quartile,
            users: row.users,
            ndcg: row.ndcg,
        }
    }
}

impl From<MerchantExposure> for v1::MerchantExposure {
    fn from(merchant: MerchantExposure) -> Self {
        Self {
            merchant_id: merchant.merchant_id,
            exposure_share: merchant.exposure_share,
            catalog_share: merchant.catalog_share,
            sales_share: merchant.sales_share,
            exposure_per_catalog_share: merchant.exposure_per_catalog_share,
            exposure_per_sales_share: merchant.exposure_per_sales_share,
        }
    }
}

impl From<AttributeBias> for v1::AttributeBias {
    fn from(bias: AttributeBias) -> Self {
        Self {
            attribute: bias.attribute,
            groups: bias.groups.into_iter().map(Into::into).collect(),
            hidden_users: bias.hidden_users,
            ndcg_ratio: bias.ndcg_ratio.map(Into::into),
            hit_rate_ratio: bias.hit_rate_ratio.map(Into::into),
            selection_rate_ratio: bias.selection_rate_ratio.map(Into::into),
        }
    }
}

impl From<AttributeGroup> for v1::AttributeGroup {
    fn from(group: AttributeGroup) -> Self {
        Self {
            value: group.value,
            users: group.users,
            ndcg: group.ndcg,
            hit_rate: group.hit_rate,
            selection_rate: group.selection_rate,
        }
    }
}

impl From<GroupRatio> for v1::GroupRatio {
    fn from(ratio: GroupRatio) -> Self {
        Self {
            least_favored: ratio.least_favored,
            most_favored: ratio.most_favored,
            ratio: ratio.ratio,
            low: ratio.low,
            high: ratio.high,
        }
    }
}
