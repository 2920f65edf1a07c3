//! Shows the targets of a coupon, the coupons of a household, and a refusal with its reasons.

use chrono::Utc;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::campaign::{self, YOGURT};
use super::commands::Commands;
use super::demo::{Demo, array, named, number, text};
use crate::cli::figures::Figure;

/// A past coupon of the sample, and a household that was not assigned to its campaign.
const PAST_COUPON: &str = "cj-8:10000085364";
const NOT_ASSIGNED: &str = "household-2400";
/// The number of parts of an explanation that are shown.
const MAX_PARTS: usize = 2;

const CHECK: &str = "CouponService/CheckEligibility";
const LIST: &str = "CouponService/ListUserCoupons";
const TARGETS: &str = "CouponService/StreamCouponTargets";
const RESERVE: &str = "CouponService/ReserveCoupon";
const CONFIRM: &str = "CouponService/ConfirmRedemption";

pub(super) async fn show(demo: &mut Demo, commands: &mut Commands) -> anyhow::Result<()> {
    let past = json!({ "coupon_id": PAST_COUPON });
    let past = demo
        .ask_unless("COUPON_NOT_FOUND", "CampaignService/GetCoupon", &past)
        .await?;
    if past.is_none() {
        println!(
            "\nThe existing data hold no sample of coupons. To try the sample, choose another folder with --data-dir."
        );
        return Ok(());
    }
    let campaign = campaign::ensure(demo, Utc::now()).await?;
    print_campaign(&campaign);

    commands.begin("Try the coupons:");
    let household = show_targets(demo, commands).await?;
    if let Some(household) = &household {
        show_coupons_of(demo, commands, household).await?;
    }
    show_refusal(demo, commands).await?;
    if let Some(household) = &household {
        offer_redemption(commands, household);
    }
    Ok(())
}

fn print_campaign(campaign: &Value) {
    let budget = &campaign["budget"];
    let money = |minor: &Value| format!("{:.2} {}", number(minor) / 100.0, text(&budget["currency_code"]));
    let date = |at: &Value| text(at).split('T').next().unwrap_or_default().to_owned();
    println!(
        "\nCoupons for the households: a campaign from {} to {} with a budget of {}, of which {} is spent and {} reserved.",
        date(&campaign["starts_at"]),
        date(&campaign["ends_at"]),
        money(&budget["limit_minor"]),
        money(&budget["spent_minor"]),
        money(&budget["reserved_minor"]),
    );
    println!(
        "{} % of the customers are held out: they are offered nothing, so that the effect of the campaign can be measured.",
        number(&campaign["holdout_basis_points"]) / 100.0
    );
}

/// Shows the best targets and returns the first.
async fn show_targets(demo: &mut Demo, commands: &mut Commands) -> anyhow::Result<Option<String>> {
    let by = |by: &str| json!({ "coupon_id": YOGURT, "limit": 10, "by": by, "explain": true, "preview": true });
    let propensity = by("TARGET_BY_PROPENSITY");
    let answers = demo
        .stream_unless("PROPENSITY_NOT_FITTED", TARGETS, &propensity)
        .await?;
    let (request, answers, by) = match answers {
        Some(answers) => (propensity, answers, "propensity"),
        None => {
            let affinity = by("TARGET_BY_AFFINITY");
            let answers = demo.stream(TARGETS, &affinity).await?;
            (affinity, answers, "affinity")
        }
    };
    println!("\nWho should get 20 % off yogurt? (For households that buy milk but have not bought yogurt yet.)");
    let mut first = None;
    for answer in &answers {
        if let header @ Value::Object(_) = &answer["header"] {
            println!("  {}", header_in_words(header));
            println!("  {}", measure_in_words(by));
        }
        if let target @ Value::Object(_) = &answer["target"] {
            first.get_or_insert_with(|| text(&target["user_id"]).to_owned());
            println!(
                "  {:>2}. {:<40} {:.4}",
                number(&target["rank"]),
                text(&target["user_id"]),
                Figure(number(&target["score"]))
            );
            println!("      {}", target_reason(target));
        }
    }
    commands.call(TARGETS, &request);
    commands.likemind(&["targets", YOGURT, "--by", by, "--limit", "10", "--explain"]);
    Ok(first)
}

fn header_in_words(header: &Value) -> String {
    let count = |value: &Value| HumanCount(value.as_u64().unwrap_or(0)).to_string();
    let excluded: Vec<String> = array(&header["excluded"])
        .iter()
        // Users who have the reason, but another one before it, are counted there.
        .filter(|reason| !reason["users_by_first_reason"].is_null())
        .map(|reason| {
            format!(
                "{} {}",
                count(&reason["users_by_first_reason"]),
                excluded_because(text(&reason["code"]))
            )
        })
        .collect();
    let mut words = format!(
        "{} of {} customers are eligible",
        count(&header["eligible_count"]),
        count(&header["audience_count"])
    );
    if !excluded.is_empty() {
        words.push_str(&format!("; excluded: {}", excluded.join(", ")));
    }
    words + "."
}

/// Describes the users whom a reason excludes, after their number.
fn excluded_because(code: &str) -> String {
    let words = match code {
        "REASON_CODE_RULE_FAILED" => "by the rules of the coupon",
        "REASON_CODE_HELD_OUT" => "held out",
        "REASON_CODE_NO_MARKETING_CONSENT" => "without consent to marketing",
        "REASON_CODE_PROFILING_OBJECTED" => "who object to profiling",
        "REASON_CODE_SUPPRESSED" => "suppressed",
        "REASON_CODE_USER_CAP_REACHED" => "who have used it",
        "REASON_CODE_FREQUENCY_CAPPED" => "who were offered enough coupons lately",
        other => return reason_name(other),
    };
    words.to_owned()
}

/// Turns `REASON_CODE_CAMPAIGN_ENDED` into "campaign ended".
fn reason_name(code: &str) -> String {
    code.trim_start_matches("REASON_CODE_").replace('_', " ").to_lowercase()
}

fn measure_in_words(by: &str) -> &'static str {
    match by {
        "propensity" => "They are ranked by the probability that they redeem it, as fitted on past campaigns:",
        _ => "They are ranked by affinity, the similarity of their purchases to yogurt, which is not a probability:",
    }
}

/// Describes the largest parts of a target's score.
fn target_reason(target: &Value) -> String {
    let items = array(&target["affinity"]["items"]).iter();
    let bought = |item: &Value| format!("{} {:+.4}", named(item), Figure(number(&item["contribution"])));
    let features = array(&target["propensity"]["features"]).iter();
    let feature = |feature: &Value| {
        let name = text(&feature["feature"]).replace('_', " ");
        let (value, contribution) = (number(&feature["value"]), number(&feature["contribution"]));
        // Most values are counts.
        let decimals = if value.fract() == 0.0 { 0 } else { 2 };
        format!("{name} {:.decimals$}: {:+.2}", Figure(value), Figure(contribution))
    };
    let parts: Vec<String> = items.map(bought).chain(features.map(feature)).take(MAX_PARTS).collect();
    match (parts.is_empty(), target["affinity"].is_object()) {
        (true, _) => "nothing is known".to_owned(),
        (false, true) => format!("bought {}", parts.join(", ")),
        (false, false) => parts.join(", "),
    }
}

/// Returns a cart with six pots of yogurt and a pack of soft drinks.
fn cart() -> Value {
    json!({ "currency_code": "USD", "lines": [
        { "item_id": "cj-5590287", "quantity": 6, "total_minor": 360 },
        { "item_id": "cj-5569230", "quantity": 1, "total_minor": 399 },
    ] })
}

async fn show_coupons_of(demo: &mut Demo, commands: &mut Commands, household: &str) -> anyhow::Result<()> {
    let request = json!({ "user_id": household, "cart": cart(), "preview": true });
    let listed = demo.ask(LIST, &request).await?;
    println!("\nWhich coupons can {household} use, with yogurt for 3.60 USD and soft drinks for 3.99 USD in the cart?");
    for coupon in array(&listed["coupons"]) {
        println!(
            "  {:>2}. {:<46} {:.2} {} off this cart",
            number(&coupon["rank"]),
            text(&coupon["coupon"]["title"]),
            number(&coupon["discount_minor"]) / 100.0,
            text(&coupon["coupon"]["currency_code"]),
        );
    }
    commands.call(LIST, &request);
    Ok(())
}

async fn show_refusal(demo: &mut Demo, commands: &mut Commands) -> anyhow::Result<()> {
    let cart = json!({
        "currency_code": "USD",
        "lines": [{ "item_id": "cj-5569230", "quantity": 1, "total_minor": 399 }],
    });
    let request = json!({ "user_id": NOT_ASSIGNED, "coupon_ids": [PAST_COUPON], "cart": cart });
    let checked = demo.ask(CHECK, &request).await?;
    println!("\nMay {NOT_ASSIGNED} use {PAST_COUPON}, a coupon of 2017, for soft drinks? No, for these reasons:");
    for reason in array(&checked["coupons"][0]["reasons"]) {
        println!(
            "  {:<20} required: {}; found: {}",
            reason_name(text(&reason["code"])),
            text(&reason["required"]),
            text(&reason["seen"])
        );
    }
    commands.call(CHECK, &request);
    Ok(())
}

/// Adds commands that redeem the coupon. They are not run here, because a second run would be refused.
fn offer_redemption(commands: &mut Commands, household: &str) {
    let reserve = |attempt: u32| {
        json!({
            "request_id": format!("{household}-{attempt}"),
            "user_id": household,
            "coupon_id": YOGURT,
            "cart": cart(),
        })
    };
    let confirm = json!({ "request_id": format!("{household}-confirm"), "reservation_id": "$reservation_id" });
    commands.begin("Redeem the yogurt coupon; the last command is refused, because nobody may use it twice:");
    commands.call_keeping("reservation_id", RESERVE, &reserve(1));
    commands.call_with("reservation_id", CONFIRM, &confirm);
    commands.call(RESERVE, &reserve(2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_described_in_a_sentence() {
        let header = json!({ "audience_count": 6_281, "eligible_count": 639, "excluded": [
            { "code": "REASON_CODE_RULE_FAILED", "users": 5_571, "users_by_first_reason": 5_571 },
            { "code": "REASON_CODE_NO_MARKETING_CONSENT", "users": 9, "users_by_first_reason": 1 },
            { "code": "REASON_CODE_CAMPAIGN_PAUSED", "users": 6_281, "users_by_first_reason": 70 },
        ] });
        assert_eq!(
            header_in_words(&header),
            "639 of 6,281 customers are eligible; excluded: 5,571 by the rules of the coupon, \
             1 without consent to marketing, 70 campaign paused."
        );
        let nobody = json!({ "audience_count": 2, "eligible_count": 2, "excluded": [] });
        assert_eq!(header_in_words(&nobody), "2 of 2 customers are eligible.");
    }
}
