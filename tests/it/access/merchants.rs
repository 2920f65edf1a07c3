//! A merchant's key sees only that merchant's items. Even items of the shop belong to merchant m0, odd ones to m1.

use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    GetItemRequest, ItemFilter, ListCategoriesRequest, ListItemsRequest, ListItemsResponse, ListSimilarItemsRequest,
};
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_invalid, assert_status, distinguishable};
use crate::support::api_keys::{KeyedChannel, WithKey, create_key};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop;

/// The clients of a caller with a key.
pub struct KeyedClients {
    catalog: CatalogServiceClient<KeyedChannel>,
    recommendations: RecommendationServiceClient<KeyedChannel>,
}

impl KeyedClients {
    pub async fn with_key(server: &Server, key: &str) -> Self {
        let key = WithKey::new(Some(key));
        let channel = server.channel().await;
        Self {
            catalog: CatalogServiceClient::with_interceptor(channel.clone(), key.clone()),
            recommendations: RecommendationServiceClient::with_interceptor(channel, key),
        }
    }

    async fn get(&self, item: &str) -> Result<(), Status> {
        let request = GetItemRequest {
            item_id: item.to_owned(),
        };
        self.catalog.clone().get_item(request).await.map(drop)
    }

    async fn list(&self, merchant: Option<&str>, page_token: &str) -> Result<ListItemsResponse, Status> {
        let request = ListItemsRequest {
            merchant_id: merchant.map(str::to_owned),
            page_size: 10,
            page_token: page_token.to_owned(),
            ..ListItemsRequest::default()
        };
        Ok(self.catalog.clone().list_items(request).await?.into_inner())
    }

    pub async fn similar(&self, item: &str, filter: Option<ItemFilter>) -> Result<Vec<String>, Status> {
        let request = ListSimilarItemsRequest {
            item_id: item.to_owned(),
            limit: 50,
            filter,
        };
        let answer = self.recommendations.clone().list_similar_items(request).await?;
        Ok(answer.into_inner().items.into_iter().map(|item| item.item_id).collect())
    }
}

/// A server of the shop with the item "nobodys", which has no merchant, and callers with keys of three kinds.
struct Callers {
    _database: TestDatabase,
    _server: Server,
    /// The marketer of merchant m0.
    own: KeyedClients,
    /// A marketer of all merchants.
    all: KeyedClients,
    admin: KeyedClients,
}

impl Callers {
    async fn start() -> Self {
        let database = shop::open().await;
        let with_nobodys = "INSERT INTO items (external_id) VALUES ('nobodys')";
        execute(&mut database.connect().await, with_nobodys).await;
        let own = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
        let all = create_key(&database, &["--role", "marketer"]);
        let admin = create_key(&database, &["--role", "admin"]);
        let server = Server::start(&database);
        Self {
            own: KeyedClients::with_key(&server, &own).await,
            all: KeyedClients::with_key(&server, &all).await,
            admin: KeyedClients::with_key(&server, &admin).await,
            _database: database,
            _server: server,
        }
    }
}

fn is_own(id: &str) -> bool {
    id[1..].parse::<usize>().is_ok_and(|number| number % 2 == 0)
}

#[tokio::test]
async fn a_merchants_key_cannot_distinguish_foreign_items_from_unknown_ones() {
    let Callers { own, all, .. } = &Callers::start().await;
    own.get("i02").await.unwrap();
    all.get("i03").await.unwrap();
    let unknown = distinguishable(&own.get("unheard-of").await.unwrap_err(), "unheard-of");
    assert_eq!(unknown.0, Code::NotFound);
    for foreign in ["i03", "nobodys"] {
        assert_eq!(distinguishable(&own.get(foreign).await.unwrap_err(), foreign), unknown);
    }
}

#[tokio::test]
async fn a_merchants_key_lists_only_that_merchants_items() {
    let Callers { own, all, admin, .. } = &Callers::start().await;
    let page = async |token: String| {
        let page = own.list(None, &token).await.unwrap();
        (page.items, page.next_page_token)
    };
    let (items, _) = all_pages(page).await;
    let seen: Vec<String> = items.into_iter().map(|item| item.item_id).collect();
    assert_eq!(seen.len(), shop::ITEMS / 2);
    assert!(seen.iter().all(|id| is_own(id)), "{seen:?}");
    assert_eq!(own.list(Some("m0"), "").await.unwrap().items.len(), 10);
    let refused = distinguishable(&own.list(Some("m1"), "").await.unwrap_err(), "m1");
    assert_eq!(
        (refused.0, refused.2.as_deref()),
        (Code::PermissionDenied, Some("FOREIGN_MERCHANT"))
    );
    for name in ["nobody-is-called-this", "", &"x".repeat(129)] {
        let status = own.list(Some(name), "").await.unwrap_err();
        assert_eq!(distinguishable(&status, "ID"), refused, "{name}");
    }
    for (merchant, foreign) in [(Some("m1"), admin), (None, admin), (Some("m1"), all)] {
        let token = foreign.list(merchant, "").await.unwrap().next_page_token;
        assert!(!token.is_empty());
        let status = own.list(None, &token).await.unwrap_err();
        assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    }
}

#[tokio::test]
async fn a_merchants_key_counts_only_that_merchants_items_by_category() {
    let Callers { own, all, .. } = &Callers::start().await;
    let list = async |clients: &KeyedClients, merchant: Option<&str>| {
        let request = ListCategoriesRequest {
            merchant_id: merchant.map(str::to_owned),
            ..ListCategoriesRequest::default()
        };
        let answer = clients.catalog.clone().list_categories(request).await?;
        let counts = answer.into_inner().categories.into_iter();
        Ok::<_, Status>(
            counts
                .map(|count| (count.category, count.item_count))
                .collect::<Vec<_>>(),
        )
    };
    let half = shop::ITEMS as i64 / 2;
    let (books, games) = (("books".to_owned(), half), ("games".to_owned(), half));
    assert_eq!(list(all, None).await.unwrap(), [books.clone(), games]);
    for merchant in [None, Some("m0")] {
        assert_eq!(list(own, merchant).await.unwrap(), std::slice::from_ref(&books));
    }
    for foreign in ["m1", "nobody-is-called-this"] {
        let status = list(own, Some(foreign)).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "FOREIGN_MERCHANT");
    }
}

#[tokio::test]
async fn a_merchants_key_sees_only_that_merchants_items_among_similar_ones() {
    let Callers { own, all, .. } = &Callers::start().await;
    let similar = own.similar("i02", None).await.unwrap();
    assert!(
        !similar.is_empty() && similar.iter().all(|id| is_own(id)),
        "{similar:?}"
    );
    assert!(all.similar("i02", None).await.unwrap().len() > similar.len());
    let unknown = own.similar("unheard-of", None).await.unwrap_err();
    let unknown = distinguishable(&unknown, "unheard-of");
    let foreign = own.similar("i03", None).await.unwrap_err();
    assert_eq!(distinguishable(&foreign, "i03"), unknown);
    let of_merchants = |ids: &[&str]| ItemFilter {
        merchant_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..ItemFilter::default()
    };
    assert_eq!(own.similar("i02", Some(of_merchants(&["m0"]))).await.unwrap(), similar);
    for foreign in [vec!["m1"], vec!["m0", "m1"], vec!["nobody-is-called-this"]] {
        let status = own.similar("i02", Some(of_merchants(&foreign))).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "FOREIGN_MERCHANT");
    }
    let candidates = ItemFilter {
        candidate_item_ids: ["i01", "i03", "nobodys", "unheard-of"].map(str::to_owned).to_vec(),
        ..ItemFilter::default()
    };
    assert_eq!(own.similar("i02", Some(candidates)).await.unwrap(), [""; 0]);
}
