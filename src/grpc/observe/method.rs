//! The RPCs by name, and what each takes up.

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
    /// Health and reflection stay reachable when everything else is turned away.
    Protocol,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = METHODS.len() + 1;

    pub fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        let known = METHODS.iter().position(|(known, _)| *known == name);
        Self {
            position: known.unwrap_or(METHODS.len()),
        }
    }

    pub fn at(self) -> usize {
        self.position
    }

    pub fn name(self) -> &'static str {
        METHODS.get(self.position).map_or("unknown", |(name, _)| name)
    }

    pub fn work(self) -> Work {
        METHODS.get(self.position).map_or(Work::Protocol, |(_, work)| *work)
    }
}

const METHODS: [(&str, Work); 23] = [
    ("likemind.v1.CatalogService/UpsertMerchants", Work::Database),
    ("likemind.v1.CatalogService/UpsertItems", Work::Database),
    ("likemind.v1.CatalogService/GetItem", Work::Database),
    ("likemind.v1.CatalogService/ListItems", Work::Database),
    ("likemind.v1.RatingService/UpsertRatings", Work::Database),
    ("likemind.v1.RatingService/IngestRatings", Work::Ingest),
    ("likemind.v1.RatingService/ListRatings", Work::Database),
    ("likemind.v1.RatingService/DeleteRating", Work::Database),
    ("likemind.v1.PurchaseService/RecordPurchases", Work::Database),
    ("likemind.v1.PurchaseService/IngestPurchases", Work::Ingest),
    ("likemind.v1.PurchaseService/ListPurchases", Work::Database),
    ("likemind.v1.RecommendationService/PredictRatings", Work::Memory),
    ("likemind.v1.RecommendationService/Recommend", Work::Memory),
    ("likemind.v1.RecommendationService/ListSimilarItems", Work::Memory),
    ("likemind.v1.ModelService/ListSnapshots", Work::Database),
    ("likemind.v1.ModelService/GetSnapshot", Work::Database),
    ("likemind.v1.ModelService/ActivateSnapshot", Work::Database),
    ("likemind.v1.ModelService/RollbackSnapshot", Work::Database),
    ("likemind.v1.ModelService/GetServingStatus", Work::Memory),
    ("grpc.health.v1.Health/Check", Work::Protocol),
    ("grpc.health.v1.Health/Watch", Work::Protocol),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Work::Protocol,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Work::Protocol,
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
                // A call is over for the layer when its handler has returned.
                assert!(
                    !method.is_server_streaming(),
                    "{name} would be measured without its answers"
                );
            }
        }
        assert_eq!(Method::of("/likemind.v1.RatingService/Other").name(), "unknown");
        assert_eq!(Method::of("").at() + 1, Method::COUNT);
    }
}
