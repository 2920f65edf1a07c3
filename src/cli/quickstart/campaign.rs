//! Creates a running campaign of the platform over gRPC, as a marketer would. Later runs reuse it.

use chrono::{DateTime, Days, NaiveTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::demo::{Demo, text};

const CAMPAIGN: &str = "quickstart";
/// The coupon for households that buy milk but no yogurt yet.
pub(super) const YOGURT: &str = "quickstart-yogurt";
const SOFT_DRINKS: &str = "quickstart-soft-drinks";
const DAYS: u64 = 30;

/// Creates the campaign and its two coupons unless they exist, and moves its window so that it contains `now`. Returns the
/// stored campaign.
pub(super) async fn ensure(demo: &mut Demo, now: DateTime<Utc>) -> anyhow::Result<Value> {
    let id = json!({ "campaign_id": CAMPAIGN });
    let found = demo
        .ask_unless("CAMPAIGN_NOT_FOUND", "CampaignService/GetCampaign", &id)
        .await?;
    let campaign = match found {
        Some(found) if is_live(&found["campaign"], now) => found,
        Some(_) => {
            let again = json!({ "campaign": window(now) });
            demo.ask("CampaignService/UpdateCampaign", &again).await?
        }
        None => demo.ask("CampaignService/CreateCampaign", &new_campaign(now)).await?,
    };
    for coupon in [yogurt(), soft_drinks()] {
        let id = json!({ "coupon_id": coupon["coupon_id"] });
        let found = demo
            .ask_unless("COUPON_NOT_FOUND", "CampaignService/GetCoupon", &id)
            .await?;
        if found.is_none() {
            let new = json!({ "coupon": coupon });
            demo.ask("CampaignService/CreateCoupon", &new).await?;
        }
    }
    Ok(campaign["campaign"].clone())
}

fn is_live(campaign: &Value, now: DateTime<Utc>) -> bool {
    let at = |field: &str| DateTime::parse_from_rfc3339(text(&campaign[field])).ok();
    at("starts_at").is_some_and(|start| start <= now) && at("ends_at").is_some_and(|end| now < end)
}

/// Returns a window from the beginning of the day of `now`.
fn window(now: DateTime<Utc>) -> Value {
    let start = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    let end = start + Days::new(DAYS);
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({ "campaign_id": CAMPAIGN, "starts_at": time(start), "ends_at": time(end) })
}

fn new_campaign(now: DateTime<Utc>) -> Value {
    let mut campaign = window(now);
    campaign["name"] = json!("Breakfast");
    campaign["currency_code"] = json!("USD");
    campaign["budget_limit_minor"] = json!(50_000);
    campaign["holdout_basis_points"] = json!(1_000);
    json!({ "campaign": campaign, "state": "CAMPAIGN_STATE_ACTIVE" })
}

fn yogurt() -> Value {
    json!({
        "coupon_id": YOGURT,
        "campaign_id": CAMPAIGN,
        "title": "20 % off your first yogurt, at most 2.00 USD",
        "discount": { "percent_basis_points": 2_000 },
        "max_discount_minor": 200,
        "scope": { "items": { "categories": ["YOGURT"] } },
        "per_user_cap": 1,
        "rules": { "rules": [
            { "bought": { "categories": ["FLUID MILK PRODUCTS"] } },
            { "not_bought": { "categories": ["YOGURT"] } },
        ] },
    })
}

fn soft_drinks() -> Value {
    json!({
        "coupon_id": SOFT_DRINKS,
        "campaign_id": CAMPAIGN,
        "title": "1.00 USD off soft drinks",
        "discount": { "amount_minor": 100 },
        "min_cart_minor": 300,
        "scope": { "items": { "categories": ["SOFT DRINKS"] } },
        "per_user_cap": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_is_live_from_its_first_day_until_its_end() {
        let at = |time: &str| time.parse::<DateTime<Utc>>().unwrap();
        let campaign = window(at("2026-02-27T15:04:05Z"));
        assert_eq!(campaign["starts_at"], "2026-02-27T00:00:00Z");
        assert_eq!(campaign["ends_at"], "2026-03-29T00:00:00Z");
        for (now, want) in [
            ("2026-02-26T23:59:59Z", false),
            ("2026-02-27T00:00:00Z", true),
            ("2026-03-28T23:59:59Z", true),
            ("2026-03-29T00:00:00Z", false),
        ] {
            assert_eq!(is_live(&campaign, at(now)), want, "{now}");
        }
        assert!(!is_live(&json!({}), at("2026-02-27T00:00:00Z")));
    }
}
