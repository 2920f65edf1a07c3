//! The RPCs by name: what each takes up, and who may call it.

use std::collections::HashMap;
use std::sync::LazyLock;

use domain::access::Role;

/// An RPC that we have, or the one name for all that we do not have: paths come from outside, and every label is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Position in [`METHODS`]; its length stands for all others.
    position: usize,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Memory,
    Database,
    /// Also for the client, as long as it likes.
    Ingest,
    /// Answers row by row, as fast as the client takes them.
    Stream,
    /// Health and reflection stay reachable when everything else is turned away.
    Protocol,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = METHODS.len() + 1;

    pub fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        Self {
            position: POSITIONS.get(name).copied().unwrap_or(METHODS.len()),
        }
    }

    pub fn at(self) -> usize {
        self.position
    }

    pub fn name(self) -> &'static str {
        METHODS.get(self.position).map_or("unknown", |(name, ..)| name)
    }

    pub fn work(self) -> Work {
        METHODS.get(self.position).map_or(Work::Protocol, |(_, work, _)| *work)
    }

    pub fn callers(self) -> Callers {
        METHODS
            .get(self.position)
            .map_or(Callers::Anyone, |(_, _, callers)| *callers)
    }
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Also without a key.
    Anyone,
    Only(&'static [Role]),
}

impl Callers {
    pub fn include(self, role: Role) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(roles) => roles.contains(&role),
        }
    }
}

use Role::{Admin, Ingest, Marketer, Operator, Service};

const ALL: Callers = Callers::Only(&Role::ALL);
const LOADERS: Callers = Callers::Only(&[Ingest, Admin]);
const REPORTERS: Callers = Callers::Only(&[Service, Ingest, Admin]);
/// They see what single shoppers did.
const SHOPPER_READERS: Callers = Callers::Only(&[Service, Operator, Admin]);
const ITEM_READERS: Callers = Callers::Only(&[Service, Marketer, Operator, Admin]);
const CAMPAIGNERS: Callers = Callers::Only(&[Marketer, Operator, Admin]);
const OFFERERS: Callers = Callers::Only(&[Service, Marketer, Operator, Admin]);
const REDEEMERS: Callers = Callers::Only(&[Service, Admin]);
const CONSENTERS: Callers = Callers::Only(&[Service, Operator, Admin]);
const OPERATORS: Callers = Callers::Only(&[Operator, Admin]);

/// In [`METHODS`], by name.
static POSITIONS: LazyLock<HashMap<&str, usize>> =
    LazyLock::new(|| METHODS.iter().enumerate().map(|(at, (name, ..))| (*name, at)).collect());

const METHODS: [(&str, Work, Callers); 44] = [
    ("likemind.v1.CatalogService/UpsertMerchants", Work::Database, LOADERS),
    ("likemind.v1.CatalogService/UpsertItems", Work::Database, LOADERS),
    ("likemind.v1.CatalogService/GetItem", Work::Database, ALL),
    ("likemind.v1.CatalogService/ListItems", Work::Database, ALL),
    ("likemind.v1.RatingService/UpsertRatings", Work::Database, REPORTERS),
    ("likemind.v1.RatingService/IngestRatings", Work::Ingest, REPORTERS),
    ("likemind.v1.RatingService/ListRatings", Work::Database, SHOPPER_READERS),
    ("likemind.v1.RatingService/DeleteRating", Work::Database, REPORTERS),
    ("likemind.v1.PurchaseService/RecordPurchases", Work::Database, REPORTERS),
    ("likemind.v1.PurchaseService/IngestPurchases", Work::Ingest, REPORTERS),
    (
        "likemind.v1.PurchaseService/ListPurchases",
        Work::Database,
        SHOPPER_READERS,
    ),
    (
        "likemind.v1.RecommendationService/PredictRatings",
        Work::Memory,
        SHOPPER_READERS,
    ),
    (
        "likemind.v1.RecommendationService/Recommend",
        Work::Memory,
        SHOPPER_READERS,
    ),
    (
        "likemind.v1.RecommendationService/ListSimilarItems",
        Work::Memory,
        ITEM_READERS,
    ),
    (
        "likemind.v1.RecommendationService/ListSimilarUsers",
        Work::Memory,
        OPERATORS,
    ),
    (
        "likemind.v1.RecommendationService/ListItemAudience",
        Work::Memory,
        CAMPAIGNERS,
    ),
    ("likemind.v1.ModelService/ListSnapshots", Work::Database, OPERATORS),
    ("likemind.v1.ModelService/GetSnapshot", Work::Database, OPERATORS),
    ("likemind.v1.ModelService/ActivateSnapshot", Work::Database, OPERATORS),
    ("likemind.v1.ModelService/RollbackSnapshot", Work::Database, OPERATORS),
    (
        "likemind.v1.ModelService/GetServingStatus",
        Work::Memory,
        SHOPPER_READERS,
    ),
    (
        "likemind.v1.CampaignService/CreateCampaign",
        Work::Database,
        CAMPAIGNERS,
    ),
    (
        "likemind.v1.CampaignService/UpdateCampaign",
        Work::Database,
        CAMPAIGNERS,
    ),
    ("likemind.v1.CampaignService/GetCampaign", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CampaignService/ListCampaigns", Work::Database, CAMPAIGNERS),
    (
        "likemind.v1.CampaignService/SetCampaignState",
        Work::Database,
        CAMPAIGNERS,
    ),
    ("likemind.v1.CampaignService/CreateCoupon", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CampaignService/UpdateCoupon", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CampaignService/GetCoupon", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CampaignService/ListCoupons", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CampaignService/GetLiftReport", Work::Database, CAMPAIGNERS),
    ("likemind.v1.CouponService/CheckEligibility", Work::Database, OFFERERS),
    ("likemind.v1.CouponService/ListUserCoupons", Work::Database, OFFERERS),
    (
        "likemind.v1.CouponService/StreamCouponTargets",
        Work::Stream,
        CAMPAIGNERS,
    ),
    ("likemind.v1.CouponService/ReserveCoupon", Work::Database, REDEEMERS),
    ("likemind.v1.CouponService/ConfirmRedemption", Work::Database, REDEEMERS),
    (
        "likemind.v1.CouponService/ReleaseReservation",
        Work::Database,
        REDEEMERS,
    ),
    (
        "likemind.v1.CouponService/RollbackRedemption",
        Work::Database,
        REDEEMERS,
    ),
    ("likemind.v1.PrivacyService/SetConsent", Work::Database, CONSENTERS),
    ("likemind.v1.PrivacyService/GetConsent", Work::Database, CONSENTERS),
    ("grpc.health.v1.Health/Check", Work::Protocol, Callers::Anyone),
    ("grpc.health.v1.Health/Watch", Work::Protocol, Callers::Anyone),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Work::Protocol,
        Callers::Anyone,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Work::Protocol,
        Callers::Anyone,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_has_a_name_of_its_own() {
        let pool = prost_reflect::DescriptorPool::decode(crate::grpc::proto::DESCRIPTORS).unwrap();
        for service in pool.services() {
            for method in service.methods() {
                let name = format!("{}/{}", service.full_name(), method.name());
                let known = Method::of(&format!("/{name}"));
                assert_eq!(known.name(), name, "is missing in METHODS");
                assert_ne!(known.work(), Work::Protocol, "{name}");
                assert_eq!(known.work() == Work::Ingest, method.is_client_streaming(), "{name}");
                assert_eq!(known.work() == Work::Stream, method.is_server_streaming(), "{name}");
            }
        }
        assert_eq!(Method::of("/likemind.v1.RatingService/Other").name(), "unknown");
        assert_eq!(Method::of("").at() + 1, Method::COUNT);
    }

    #[test]
    fn the_readme_says_who_may_call_what() {
        let readme = include_str!("../../README.md");
        let rows: Vec<(Vec<&str>, &str)> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
            .map(|(rpcs, roles)| (rpcs.split(", ").collect(), roles))
            .collect();
        for (name, _, callers) in METHODS {
            let Callers::Only(roles) = callers else { continue };
            let (_, rpc) = name.split_once('/').unwrap();
            let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
            let is_shown = rows.iter().any(|(rpcs, shown)| rpcs.contains(&rpc) && *shown == roles);
            assert!(is_shown, "the README does not say that {rpc} is for {roles}");
        }
    }

    #[test]
    fn only_protocols_are_for_anyone() {
        for (name, work, callers) in METHODS {
            assert_eq!(callers == Callers::Anyone, work == Work::Protocol, "{name}");
            assert!(callers.include(Role::Admin), "{name}");
        }
    }
}
