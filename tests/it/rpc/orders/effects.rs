//! Purchases that are taken back, and returns under a document of their own, count at once everywhere.

use likemind::grpc::proto::v1::{
    CheckEligibilityRequest, Personalization, PurchaseLine, RecommendRequest, RecordPurchasesRequest, Verdict,
};

use super::{Client, cancellation, delete, line, order, record_all, select, single_lines};
use crate::support::caller::{Caller, Scores, assert_equal, equal, for_user, plus};
use crate::support::coupons::{CouponClient, Offer};
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, succeed};
use crate::support::shop::{self, item};
use crate::support::times::at;
use crate::support::waiting::soon;

/// The facts that the services know of a user.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    /// Whether item 5 is left out where purchases are excluded.
    has_bought: bool,
    /// Whether a coupon for those who have bought item 5 is theirs.
    is_buyer: bool,
    is_new: bool,
    /// The item-based scores; empty where only what is popular can be shown.
    scores: Scores,
}

impl Known {
    fn nothing() -> Self {
        Self {
            has_bought: false,
            is_buyer: false,
            is_new: true,
            scores: Scores::new(),
        }
    }
}

/// A shop with two servers, the second of which polls often.
struct Shop {
    database: TestDatabase,
    servers: [Server; 2],
    client: Client,
    similar: Scores,
}

impl Shop {
    async fn open() -> Self {
        let database = shop::open().await;
        for offer in [
            Offer {
                rules: r#"[{"bought": {"items": ["i05"]}}]"#,
                ..Offer::of("buyers")
            },
            Offer {
                rules: r#"["new_user"]"#,
                ..Offer::of("newcomers")
            },
        ] {
            offer.create(&mut database.connect().await).await;
        }
        let servers = [
            Server::start(&database),
            Server::with(&database, &[("live.refresh_interval_ms", "200")]),
        ];
        let caller = Caller::of(&servers[0]).await;
        Self {
            client: servers[0].purchases().await,
            similar: caller.similar(&item(5)).await,
            database,
            servers,
        }
    }

    /// Returns what is known of somebody whose only effective rating is `rating`, for item 5.
    fn buyer(&self, rating: f64) -> Known {
        Known {
            has_bought: true,
            is_buyer: true,
            is_new: false,
            scores: plus(&Scores::new(), rating, &self.similar),
        }
    }

    /// Asserts what is known of `user`, at once where it was written and soon on the other server.
    async fn assert_known(&self, user: &str, expected: &Known, what: &str) {
        let [here, elsewhere] = &self.servers;
        let found = known(here, user).await;
        assert_equal(&found.scores, &expected.scores, what);
        assert!(is_equal(&found, expected), "{what}: {found:?}");
        let look = async || known(elsewhere, user).await;
        soon(&format!("elsewhere: {what}"), look, |found| is_equal(found, expected)).await;
    }

    async fn record(&self, lines: Vec<PurchaseLine>) {
        self.client
            .clone()
            .record_purchases(RecordPurchasesRequest { lines })
            .await
            .unwrap();
    }
}

fn is_equal(a: &Known, b: &Known) -> bool {
    let facts = |known: &Known| (known.has_bought, known.is_buyer, known.is_new);
    facts(a) == facts(b) && equal(&a.scores, &b.scores)
}

async fn known(server: &Server, user: &str) -> Known {
    let caller = Caller::of(server).await;
    let ranked = caller.ranked(user).await;
    let excluded = RecommendRequest {
        exclude_purchased: true,
        ..for_user(user)
    };
    let shown = caller.recommend(excluded).await.items;
    let request = CheckEligibilityRequest {
        user_id: user.to_owned(),
        coupon_ids: vec!["buyers".to_owned(), "newcomers".to_owned()],
        cart: None,
    };
    let answer = CouponClient::of(server)
        .await
        .rpc
        .check_eligibility(request)
        .await
        .unwrap();
    let verdicts: Vec<Verdict> = answer
        .into_inner()
        .coupons
        .iter()
        .map(|coupon| coupon.verdict())
        .collect();
    Known {
        has_bought: !shown.iter().any(|shown| shown.item_id == item(5)),
        is_buyer: verdicts[0] == Verdict::Eligible,
        is_new: verdicts[1] == Verdict::Eligible,
        scores: match ranked.personalization() {
            Personalization::Popularity => Scores::new(),
            _ => ranked
                .items
                .into_iter()
                .map(|item| (item.item_id, item.score))
                .collect(),
        },
    }
}

/// Returns a line of item 5 as a document of its own, at `second`.
fn document(id: &str, second: i64, user: &str, quantity: i32) -> Vec<PurchaseLine> {
    let placed = likemind::grpc::proto::v1::Order {
        purchased_at: at(second),
        ..order(id, 0, user, &[line(1, &item(5), quantity, 100)])
    };
    single_lines(&placed)
}

#[tokio::test]
async fn a_corrected_cancelled_or_deleted_order_counts_at_once_everywhere() {
    let shop = Shop::open().await;
    let one = [line(1, &item(5), 1, 100)];
    record_all(
        &shop.client,
        vec![order("o", 1, "ann", &one), order("p", 1, "bob", &one)],
    )
    .await;
    shop.assert_known("ann", &shop.buyer(1.0), "one order").await;
    // The customer is corrected: it was bob, who has two orders now.
    record_all(&shop.client, vec![order("o", 2, "bob", &one)]).await;
    shop.assert_known("ann", &Known::nothing(), "the order was not hers")
        .await;
    shop.assert_known("bob", &shop.buyer(2.0), "two orders").await;
    // Another item: what is similar to that counts instead.
    record_all(&shop.client, vec![order("o", 3, "bob", &[line(1, &item(6), 1, 100)])]).await;
    let similar_to_6 = Caller::of(&shop.servers[0]).await.similar(&item(6)).await;
    let both = Known {
        scores: plus(&plus(&Scores::new(), 1.0, &shop.similar), 1.0, &similar_to_6),
        ..shop.buyer(1.0)
    };
    shop.assert_known("bob", &both, "one order of each").await;
    record_all(&shop.client, vec![cancellation("o", 4)]).await;
    shop.assert_known("bob", &shop.buyer(1.0), "one order is cancelled")
        .await;
    delete(&shop.client, &[select("p", &[1])]).await;
    shop.assert_known("bob", &Known::nothing(), "the other one is deleted")
        .await;
}

#[tokio::test]
async fn returns_take_back_earlier_purchases_newest_first_and_never_more() {
    let shop = Shop::open().await;
    shop.record(document("o", 100, "ann", 2)).await;
    shop.record(document("p", 200, "ann", 2)).await;
    shop.record(document("C1", 300, "ann", -1)).await;
    shop.assert_known("ann", &shop.buyer(2.0), "half of the newest order is returned")
        .await;
    shop.record(document("C2", 300, "ann", -1)).await;
    shop.assert_known("ann", &shop.buyer(1.0), "all of the newest order is returned")
        .await;
    shop.record(document("C3", 300, "ann", -99)).await;
    shop.assert_known("ann", &Known::nothing(), "more is returned than was bought")
        .await;
    shop.record(document("late", 250, "ann", 1)).await;
    shop.assert_known(
        "ann",
        &Known::nothing(),
        "an order from before that return arrives late",
    )
    .await;
    shop.record(document("q", 400, "ann", 1)).await;
    shop.assert_known("ann", &shop.buyer(1.0), "an order after that return")
        .await;
    // Without that return, something of o and p is left beside q: the other returns have taken the late order and half of p.
    delete(&shop.client, &[select("C3", &[])]).await;
    let three_orders = 1.0 + 3.0_f64.log2();
    shop.assert_known("ann", &shop.buyer(three_orders), "the return is deleted")
        .await;
    // Another user's return takes nothing.
    shop.record(document("C4", 500, "bob", -1)).await;
    shop.assert_known("ann", &shop.buyer(three_orders), "another user's return")
        .await;
    shop.assert_known("bob", &Known::nothing(), "a return without a purchase")
        .await;

    // A trainer counts the same, and its snapshot answers the same.
    shop.record(document("z", 500, "zoe", 1)).await;
    shop.record(document("C5", 600, "zoe", -1)).await;
    succeed(&shop.database, &["train", "--set-config=gate.min_users=1000000"]);
    let retrained = Server::start(&shop.database);
    assert_eq!(Caller::of(&retrained).await.status().await.snapshot_version, Some(2));
    let similar = Caller::of(&retrained).await.similar(&item(5)).await;
    let found = known(&retrained, "ann").await;
    let expected = Known {
        scores: plus(&Scores::new(), three_orders, &similar),
        ..shop.buyer(three_orders)
    };
    assert!(is_equal(&found, &expected), "{found:?}\n{expected:?}");
    for user in ["bob", "zoe"] {
        let found = known(&retrained, user).await;
        assert!(is_equal(&found, &Known::nothing()), "{user}: {found:?}");
    }
    // A return of today takes back the orders that the snapshot knows.
    shop.record(document("C6", 900, "ann", -99)).await;
    let look = async || known(&retrained, "ann").await;
    soon("everything is returned after training", look, |found| {
        is_equal(found, &Known::nothing())
    })
    .await;
}
