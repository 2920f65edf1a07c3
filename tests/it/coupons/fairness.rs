//! How groups of users are selected by campaigns, and rules about sensitive attributes.

use likemind::grpc::proto::v1::{
    AllowSensitiveAttributeRequest, AttributeRule, CampaignSpec, CampaignState, CouponSpec,
    GetCampaignBiasReportRequest, GetCampaignBiasReportResponse, rule,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::api_keys::{create_key, id_of};
use crate::support::campaigns::{CampaignClient, a_campaign, a_coupon, coupon_change, rules};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, succeed};
use crate::support::shop;

const SETTINGS: [(&str, &str); 3] = [
    ("bias.attributes", "age, rare"),
    ("bias.min_group", "2"),
    ("privacy.sensitive_attributes", "gender, faith"),
];

/// The shop with eight more users: u-a0 to u-a3 are young, u-b0 to u-b3 old, and one has a rare value.
async fn with_groups() -> TestDatabase {
    let database = shop::open().await;
    execute(
        &mut database.connect().await,
        "INSERT INTO users (external_id) SELECT 'u-' || kind || n FROM UNNEST(ARRAY['a', 'b']) AS kind, generate_series(0, 3) AS n;
         INSERT INTO user_attributes (user_id, name, value)
             SELECT id, 'age', CASE substring(external_id, 3, 1) WHEN 'a' THEN 'young' ELSE 'old' END
             FROM users WHERE external_id LIKE 'u-_%'
             UNION ALL SELECT id, 'rare', 'yes' FROM users WHERE external_id = 'u-a0'",
    )
    .await;
    database
}

async fn report(client: &CampaignClient, campaign: &str) -> Result<GetCampaignBiasReportResponse, Status> {
    let campaign_id = campaign.to_owned();
    let request = GetCampaignBiasReportRequest { campaign_id };
    Ok(client.rpc.clone().get_campaign_bias_report(request).await?.into_inner())
}

async fn allow(client: &CampaignClient, campaign: &str, attribute: &str) -> Result<(), Status> {
    let request = AllowSensitiveAttributeRequest {
        campaign_id: campaign.to_owned(),
        attribute: attribute.to_owned(),
        reason: "a shop for mothers".to_owned(),
    };
    client.rpc.clone().allow_sensitive_attribute(request).await.map(drop)
}

/// A coupon of the campaign k for users whose attribute has this value.
fn coupon_for(id: &str, name: &str, value: &str) -> CouponSpec {
    CouponSpec {
        rules: rules([rule::Kind::Attribute(AttributeRule {
            name: name.to_owned(),
            values: vec![value.to_owned()],
        })]),
        ..a_coupon(id, "k")
    }
}

fn of_merchant(id: &str, merchant: &str) -> CampaignSpec {
    CampaignSpec {
        merchant_id: Some(merchant.to_owned()),
        ..a_campaign(id)
    }
}

#[tokio::test]
async fn groups_are_compared_by_who_is_eligible_targeted_and_redeems() {
    let database = with_groups().await;
    let server = Server::with(&database, &SETTINGS);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    client.create_coupon(coupon_for("young", "age", "young")).await.unwrap();
    client.create_coupon(coupon_for("old", "age", "old")).await.unwrap();
    // Three young users and one old one are targeted; one of each redeems, and one redemption is taken back. A held-out user
    // is not targeted.
    execute(
        &mut database.connect().await,
        "INSERT INTO assignments (campaign_id, user_id)
             SELECT campaigns.id, users.id FROM campaigns, users
             WHERE campaigns.external_id = 'k' AND users.external_id IN ('u-a0', 'u-a1', 'u-b0');
         INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
             SELECT coupons.id, users.id, campaign_id, users.external_id = 'u-b1', 1 FROM coupons, users
             WHERE coupons.external_id = 'young' AND users.external_id IN ('u-a2', 'u-b1');
         INSERT INTO redemptions (external_id, user_id, coupon_id, campaign_id, amount_minor, rolled_back_minor, by_assignment,
                                  redeemed_at)
             SELECT 'r-' || users.external_id, users.id, coupons.id, campaign_id, 100,
                    CASE users.external_id WHEN 'u-a1' THEN 100 ELSE 0 END, false, now() FROM coupons, users
             WHERE coupons.external_id = 'young' AND users.external_id IN ('u-a0', 'u-a1', 'u-b0')",
    )
    .await;
    let found = report(&client, "k").await.unwrap();
    assert_eq!((found.eligible, found.targeted, found.redeemed), (8, 4, 2));
    let [age, rare] = &found.attributes[..] else {
        panic!("{found:?}")
    };
    let groups: Vec<_> = age
        .groups
        .iter()
        .map(|group| (&*group.value, group.eligible, group.targeted, group.redeemed))
        .collect();
    assert_eq!(
        (groups, age.hidden_users),
        (vec![("old", 4, 1, 1), ("young", 4, 3, 1)], 0)
    );
    let selection = age.selection_rate.as_ref().unwrap();
    assert_eq!((&*selection.least, &*selection.most), ("old", "young"));
    assert!(
        (selection.ratio - 1.0 / 3.0).abs() < 1e-12 && selection.low < 0.3 && selection.high > 1.0,
        "{selection:?}"
    );
    // A single user is not shown.
    assert_eq!((rare.groups.len(), rare.hidden_users), (0, 8));

    let args = [
        "bias",
        "--campaign",
        "k",
        "--json",
        "--set-config=bias.attributes=age",
        "--set-config=bias.min_group=2",
    ];
    let json: Value = serde_json::from_str(&succeed(&database, &args)).unwrap();
    assert_eq!(json["attributes"][0]["groups"][1]["targeted"], 3);
    let text = succeed(&database, &[&args[..3], &args[4..]].concat());
    assert!(
        text.contains("selection rate of old, the least, is 0.33 of that of young"),
        "{text}"
    );
}

#[tokio::test]
async fn a_marketer_sees_the_groups_of_their_own_campaigns_alone() {
    let database = with_groups().await;
    let own = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    let operator = create_key(&database, &["--role", "operator"]);
    let server = Server::with(&database, &SETTINGS);
    let marketer = CampaignClient::with_key(&server, Some(&own)).await;
    let operator = CampaignClient::with_key(&server, Some(&operator)).await;
    operator
        .create(of_merchant("mine", "m0"), CampaignState::Active)
        .await
        .unwrap();
    operator
        .create(of_merchant("other", "m1"), CampaignState::Active)
        .await
        .unwrap();
    operator
        .create(a_campaign("platform"), CampaignState::Active)
        .await
        .unwrap();
    assert!(report(&marketer, "mine").await.is_ok());
    for hidden in ["other", "platform", "unknown"] {
        assert_status(
            &report(&marketer, hidden).await.unwrap_err(),
            Code::NotFound,
            "CAMPAIGN_NOT_FOUND",
        );
    }
    assert!(report(&operator, "other").await.is_ok());
    // Permissions for sensitive attributes are an operator's.
    let refused = allow(&marketer, "mine", "gender").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

#[tokio::test]
async fn a_sensitive_attribute_needs_an_operators_permission_for_the_campaign() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "operator"]);
    let server = Server::with(&database, &SETTINGS);
    let client = CampaignClient::with_key(&server, Some(&key)).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    let refused = client.create_coupon(coupon_for("c", "gender", "f")).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SENSITIVE_ATTRIBUTE");
    assert!(
        refused.message().contains("attribute gender is sensitive"),
        "{refused:?}"
    );
    client.create_coupon(coupon_for("c", "age", "25-34")).await.unwrap();
    let change = CouponSpec {
        campaign_id: String::new(),
        ..coupon_for("c", "gender", "f")
    };
    let refused = client.update_coupon(change.clone()).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SENSITIVE_ATTRIBUTE");
    client.update_coupon(coupon_change("c")).await.unwrap();

    let unknown = allow(&client, "unknown", "gender").await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "CAMPAIGN_NOT_FOUND");
    for _ in 0..2 {
        allow(&client, "k", "gender").await.unwrap();
    }
    client.update_coupon(change).await.unwrap();
    // The permission is for this attribute and this campaign.
    let refused = client.create_coupon(coupon_for("d", "faith", "x")).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SENSITIVE_ATTRIBUTE");
    client.create(a_campaign("l"), CampaignState::Draft).await.unwrap();
    let elsewhere = CouponSpec {
        campaign_id: "l".to_owned(),
        ..coupon_for("e", "gender", "f")
    };
    let refused = client.create_coupon(elsewhere).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SENSITIVE_ATTRIBUTE");

    let audited: Vec<(String, String, String)> =
        sqlx::query_as("SELECT actor, subject, note FROM audit WHERE action = 'SENSITIVE_ATTRIBUTE_ALLOWED'")
            .fetch_all(&mut database.connect().await)
            .await
            .unwrap();
    let expected = (
        format!("key:{}", id_of(&key)),
        "k".to_owned(),
        "gender: a shop for mothers".to_owned(),
    );
    assert_eq!(audited, [expected]);
}

#[tokio::test]
async fn a_campaign_with_older_rules_about_a_sensitive_attribute_cannot_be_activated() {
    let database = shop::open().await;
    let before = Server::start(&database);
    let client = CampaignClient::of(&before).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    client.create_coupon(coupon_for("c", "gender", "f")).await.unwrap();
    before.stop();
    let server = Server::with(&database, &SETTINGS);
    let client = CampaignClient::of(&server).await;
    for state in [CampaignState::Scheduled, CampaignState::Active] {
        let refused = client.set_state("k", state).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "SENSITIVE_ATTRIBUTE");
    }
    allow(&client, "k", "gender").await.unwrap();
    client.set_state("k", CampaignState::Active).await.unwrap();
}
