//! Nothing is written under the pseudonym of an erased user, and whoever asks for it is told what they would be told of somebody
//! unknown.

use std::fmt::Debug;

use likemind::grpc::proto::v1::{
    AssignmentKey, AttributeValue, CheckEligibilityRequest, ConsentDecision, DeleteAssignmentsRequest,
    DeletePurchasesRequest, DeleteRatingRequest, DeleteSuppressionsRequest, DeleteUserAttributesRequest, EntryOutcome,
    ExportUserDataRequest, GetCampaignBiasReportRequest, GetConsentRequest, ListConsentsRequest, ListPurchasesRequest,
    ListRedemptionsRequest, ListReservationsRequest, ListUserCouponsRequest, OrderOutcome, PurchaseLine,
    PurchaseSelection, Purpose, RecordOrdersRequest, RecordPurchasesRequest, RectifyUserRequest, SetConsentRequest,
    SuppressionKey, UpsertAssignmentsRequest, UpsertRatingsRequest, UpsertSuppressionsRequest,
    UpsertUserAttributesRequest, UserAttributeKey, UserSuppression, list_purchases_request,
};
use serde_json::Value;
use sqlx::PgConnection;
use tonic::{Code, Response, Status};

use super::feeds::old_files;
use super::{attribute_of, order_of};
use crate::support::answers::{assert_invalid, assert_outcomes, assert_status};
use crate::support::caller::{Caller, a_rating, pounds};
use crate::support::coupons::{CouponClient, Offer};
use crate::support::erasures::{ErasureClient, KEY, KeyFile};
use crate::support::postgres::{TestDatabase, number, scratch};
use crate::support::program::{Server, run};
use crate::support::shop::{self, item, user};

/// A shop in which user 1 was erased, of whom a purchase, decisions and a redemption are kept.
struct Erased {
    database: TestDatabase,
    key: KeyFile,
    server: Server,
    pseudonym: String,
}

impl Erased {
    async fn new() -> Self {
        let database = shop::open().await;
        let mut connection = database.connect().await;
        Offer::of("k").create(&mut connection).await;
        let key = KeyFile::of(KEY);
        let server = Server::with(&database, &[key.setting()]);
        let (caller, coupons) = (Caller::of(&server).await, CouponClient::of(&server).await);
        caller.buy("order-1", 1, &user(1), &item(3), 2).await;
        let reserved = coupons.reserve("r1", &user(1), "k", 5_000).await.unwrap();
        coupons.confirm("r2", &reserved.reservation_id, None).await.unwrap();
        consent(&caller, &user(1)).await.unwrap();
        let client = ErasureClient::of(&server).await;
        let begun = client.erase(&user(1), "letter 17").await.unwrap();
        client.verified(begun.erasure_id).await;
        let pseudonym = sqlx::query_scalar("SELECT external_id FROM users WHERE is_pseudonym")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        Self {
            database,
            key,
            server,
            pseudonym,
        }
    }

    /// Returns a number that changes with every row about the pseudonym.
    async fn held(&self) -> Vec<i64> {
        let mut connection: PgConnection = self.database.connect().await;
        let mut held = Vec::new();
        for table in [
            "ratings",
            "purchases",
            "consents",
            "consent_events",
            "reservations",
            "redemptions",
            "user_attributes",
            "assignments",
            "suppressions",
            "exposures",
        ] {
            let rows = format!(
                "SELECT COALESCE(sum(hashtextextended({table}::text, 0)::numeric % 1000000007), 0)::bigint
                 FROM {table} JOIN users ON users.id = user_id WHERE users.external_id LIKE 'erased-%'"
            );
            held.push(number(&mut connection, &rows).await);
        }
        held
    }
}

async fn consent(caller: &Caller, user: &str) -> Result<(), Status> {
    let request = SetConsentRequest {
        user_id: user.to_owned(),
        decisions: vec![ConsentDecision {
            purpose: Purpose::Marketing.into(),
            granted: true,
        }],
        decided_at: None,
        source: "web".to_owned(),
    };
    caller.privacy.clone().set_consent(request).await.map(|_| ())
}

const REFUSED: Result<EntryOutcome, (&str, &str)> = Err(("user_id", "ID_IS_PSEUDONYM"));
const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);

#[tokio::test]
async fn no_entry_of_a_batch_is_written_under_a_pseudonym() {
    let erased = Erased::new().await;
    let before = erased.held().await;
    let caller = Caller::of(&erased.server).await;
    let pseudonym = || erased.pseudonym.clone();

    // A batch stores the rest.
    let ratings = vec![
        a_rating(&pseudonym(), &item(1), 3.0),
        a_rating("somebody new", &item(1), 3.0),
    ];
    let answer = caller
        .ratings
        .clone()
        .upsert_ratings(UpsertRatingsRequest { ratings })
        .await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED, STORED]);
    let line = PurchaseLine {
        order_id: "order-9".to_owned(),
        line_number: 1,
        user_id: pseudonym(),
        item_id: item(1),
        quantity: 1,
        line_total: Some(pounds(100)),
        ..PurchaseLine::default()
    };
    let request = RecordPurchasesRequest { lines: vec![line] };
    let answer = caller.purchases.clone().record_purchases(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    let request = RecordOrdersRequest {
        orders: vec![order_of(&pseudonym(), "order-10", 1_000)],
    };
    let answer = caller
        .purchases
        .clone()
        .record_orders(request)
        .await
        .unwrap()
        .into_inner();
    let result = &answer.results[0];
    let error = result.error.as_ref().unwrap();
    assert_eq!(result.outcome(), OrderOutcome::Rejected);
    assert_eq!((&*error.field, &*error.reason), ("user_id", "ID_IS_PSEUDONYM"));
    let request = UpsertUserAttributesRequest {
        attributes: vec![attribute_of(&pseudonym(), "city", "Bern")],
    };
    let answer = caller.catalog.clone().upsert_user_attributes(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    let assignments = vec![AssignmentKey {
        campaign_id: "k-k".to_owned(),
        user_id: pseudonym(),
    }];
    let request = UpsertAssignmentsRequest { assignments };
    let answer = caller.campaigns.clone().upsert_assignments(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    let suppressions = vec![UserSuppression {
        user_id: pseudonym(),
        reason: "asked".to_owned(),
    }];
    let request = UpsertSuppressionsRequest { suppressions };
    let answer = caller.privacy.clone().upsert_suppressions(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    assert_eq!(erased.held().await, before);
}

#[tokio::test]
async fn no_call_about_a_pseudonym_alone_is_carried_out() {
    let erased = Erased::new().await;
    let before = erased.held().await;
    let caller = Caller::of(&erased.server).await;
    let pseudonym = || erased.pseudonym.clone();
    let check = |refused: Status| assert_invalid(&refused, "ID_IS_PSEUDONYM", &["user_id"]);
    check(consent(&caller, &pseudonym()).await.unwrap_err());
    let coupons = CouponClient::of(&erased.server).await;
    check(coupons.reserve("r9", &pseudonym(), "k", 5_000).await.unwrap_err());
    let set = vec![AttributeValue {
        name: "city".to_owned(),
        value: "Bern".to_owned(),
    }];
    let request = RectifyUserRequest {
        user_id: pseudonym(),
        set,
        ..RectifyUserRequest::default()
    };
    check(caller.privacy.clone().rectify_user(request).await.unwrap_err());
    assert_eq!(erased.held().await, before);
}

#[tokio::test]
async fn lines_about_a_pseudonym_are_rejected() {
    let erased = Erased::new().await;
    let before = erased.held().await;
    for (kind, text) in old_files(&erased.pseudonym) {
        let summary = import(&erased, kind, &text);
        let rejected = text.lines().filter(|line| line.contains(&erased.pseudonym)).count();
        assert_eq!(summary["rejected"], rejected, "{kind}: {summary}");
        assert_eq!(summary["rejects_by_field"]["user_id"], rejected, "{kind}: {summary}");
        assert_eq!(summary["stored"], 1, "{kind}: {summary}");
    }
    assert_eq!(erased.held().await, before);
}

#[tokio::test]
async fn nothing_is_deleted_under_a_pseudonym() {
    let erased = Erased::new().await;
    let before = erased.held().await;
    let caller = Caller::of(&erased.server).await;
    let pseudonym = || erased.pseudonym.clone();
    let request = DeleteRatingRequest {
        user_id: pseudonym(),
        item_id: item(1),
        deleted_at: None,
    };
    let refused = caller.ratings.clone().delete_rating(request).await.unwrap_err();
    assert_invalid(&refused, "ID_IS_PSEUDONYM", &["user_id"]);
    let selections = vec![PurchaseSelection {
        order_id: "order-1".to_owned(),
        user_id: Some(pseudonym()),
        ..PurchaseSelection::default()
    }];
    let request = DeletePurchasesRequest { selections };
    let answer = caller
        .purchases
        .clone()
        .delete_purchases(request)
        .await
        .unwrap()
        .into_inner();
    let error = answer.results[0].error.as_ref().unwrap();
    assert_eq!((&*error.field, &*error.reason), ("user_id", "ID_IS_PSEUDONYM"));
    let attributes = vec![UserAttributeKey {
        user_id: pseudonym(),
        name: "city".to_owned(),
    }];
    let request = DeleteUserAttributesRequest { attributes };
    let answer = caller.catalog.clone().delete_user_attributes(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    let assignments = vec![AssignmentKey {
        campaign_id: "k-k".to_owned(),
        user_id: pseudonym(),
    }];
    let request = DeleteAssignmentsRequest { assignments };
    let answer = caller.campaigns.clone().delete_assignments(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    let suppressions = vec![SuppressionKey { user_id: pseudonym() }];
    let request = DeleteSuppressionsRequest { suppressions };
    let answer = caller.privacy.clone().delete_suppressions(request).await;
    assert_outcomes(&answer.unwrap().into_inner().results, &[REFUSED]);
    assert_eq!(erased.held().await, before);
}

#[tokio::test]
async fn a_pseudonym_is_answered_like_somebody_unknown() {
    let erased = Erased::new().await;
    let caller = Caller::of(&erased.server).await;
    let coupons = CouponClient::of(&erased.server).await;
    let stranger = "nobody has ever had this id";
    /// Compares answers; `asked` are the ids that they were asked for.
    fn alike<T: Debug>(asked: [&str; 2], answers: [Result<Response<T>, Status>; 2]) {
        let texts = answers.map(|answer| match answer {
            // The time of the answer is its end.
            Ok(answer) => format!("{:?}", answer.into_inner())
                .split(", checked_at")
                .next()
                .unwrap_or_default()
                .to_owned(),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        });
        assert_eq!(texts[0].replace(asked[0], asked[1]), texts[1]);
    }
    let asked = [erased.pseudonym.as_str(), stranger];
    alike(asked, {
        let get = async |user: &str| {
            let user_id = user.to_owned();
            caller.privacy.clone().get_consent(GetConsentRequest { user_id }).await
        };
        [get(asked[0]).await, get(asked[1]).await]
    });
    alike(asked, {
        let list = async |user: &str| {
            let user_id = user.to_owned();
            let request = ListConsentsRequest {
                user_id,
                ..ListConsentsRequest::default()
            };
            caller.privacy.clone().list_consents(request).await
        };
        [list(asked[0]).await, list(asked[1]).await]
    });
    alike(asked, {
        let list = async |user: &str| {
            let of = Some(list_purchases_request::Of::UserId(user.to_owned()));
            let request = ListPurchasesRequest {
                of,
                ..ListPurchasesRequest::default()
            };
            caller.purchases.clone().list_purchases(request).await
        };
        [list(asked[0]).await, list(asked[1]).await]
    });
    alike(asked, {
        let list = async |user: &str| {
            let user_id = Some(user.to_owned());
            let request = ListRedemptionsRequest {
                user_id,
                ..ListRedemptionsRequest::default()
            };
            coupons.rpc.clone().list_redemptions(request).await
        };
        [list(asked[0]).await, list(asked[1]).await]
    });
    alike(asked, {
        let list = async |user: &str| {
            let user_id = Some(user.to_owned());
            let request = ListReservationsRequest {
                user_id,
                ..ListReservationsRequest::default()
            };
            coupons.rpc.clone().list_reservations(request).await
        };
        [list(asked[0]).await, list(asked[1]).await]
    });
    alike(asked, {
        let check = async |user: &str| {
            let user_id = user.to_owned();
            let request = CheckEligibilityRequest {
                user_id,
                ..CheckEligibilityRequest::default()
            };
            coupons.rpc.clone().check_eligibility(request).await
        };
        [check(asked[0]).await, check(asked[1]).await]
    });
    alike(asked, {
        let list = async |user: &str| {
            let user_id = user.to_owned();
            let request = ListUserCouponsRequest {
                user_id,
                ..ListUserCouponsRequest::default()
            };
            coupons.rpc.clone().list_user_coupons(request).await
        };
        [list(asked[0]).await, list(asked[1]).await]
    });
    assert_eq!(caller.ranked(asked[0]).await, caller.ranked(asked[1]).await);
    let request = ExportUserDataRequest {
        user_id: erased.pseudonym.clone(),
        ..ExportUserDataRequest::default()
    };
    let refused = caller.privacy.clone().export_user_data(request).await.unwrap_err();
    assert_status(&refused, Code::NotFound, "USER_NOT_FOUND");
    let mut connection = erased.database.connect().await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM exposures").await, 0);
}

/// Imports a file, most of whose lines may be rejected, and returns its summary.
fn import(erased: &Erased, kind: &str, text: &str) -> Value {
    let folder = scratch();
    let path = folder.path().join(format!("{kind}.csv"));
    std::fs::write(&path, text).unwrap();
    let key = erased.key.argument();
    let args = [
        "import",
        kind,
        path.to_str().unwrap(),
        "--json",
        "--max-reject-share=1",
        &key,
    ];
    let (_, printed, errors) = run(&erased.database, &args);
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed} {errors}"))
}

#[tokio::test]
async fn a_campaign_is_compared_without_erased_users() {
    let erased = Erased::new().await;
    let caller = Caller::of(&erased.server).await;
    let campaign_id = "k-k".to_owned();
    let request = GetCampaignBiasReportRequest { campaign_id };
    let report = caller
        .campaigns
        .clone()
        .get_campaign_bias_report(request)
        .await
        .unwrap()
        .into_inner();
    // One of the users of the shop, who had redeemed the coupon, was erased.
    let counts = (report.eligible, report.targeted, report.redeemed);
    assert_eq!(counts, (shop::USERS as u64 - 1, 0, 0));
}
