//! Shows a predicted rating, recommendations and similar items.

use anyhow::Context;
use serde_json::{Value, json};

use super::commands::Commands;
use super::demo::{Demo, array, named, number};
use crate::cli::figures::Figure;

/// The number of items of an explanation that are shown one by one.
const MAX_TERMS: usize = 6;
/// A customer of Online Retail with a long history.
const SAMPLE_USER: &str = "17841";

pub(super) async fn show(demo: &mut Demo, commands: &mut Commands) -> anyhow::Result<()> {
    let recommend = json!({ "user_id": SAMPLE_USER, "limit": 10, "exclude_history": true, "explain": true });
    let recommended = demo.ask("RecommendationService/Recommend", &recommend).await?;
    let items = array(&recommended["items"]);
    let first = items.first().context("nothing was recommended")?;
    let predict = json!({ "user_id": SAMPLE_USER, "item_ids": [first["item_id"]], "explain": true });
    let predicted = demo.ask("RecommendationService/PredictRatings", &predict).await?;
    let similar_to = json!({ "item_id": first["item_id"], "limit": 5 });
    let similar = demo.ask("RecommendationService/ListSimilarItems", &similar_to).await?;

    println!("\nWhat would customer {SAMPLE_USER} rate {}?", named(first));
    print_prediction(&predicted["predictions"][0]["rating"]);
    println!("\nWhat should customer {SAMPLE_USER} be shown that they have not bought yet?");
    for item in items {
        println!(
            "  {:>2}. {:<40} {:.4}",
            number(&item["rank"]),
            named(item),
            Figure(number(&item["score"]))
        );
        println!("      {}", reason(&item["explanation"]));
    }
    println!("\nWhich items are bought by the same customers as {}?", named(first));
    for item in array(&similar["items"]) {
        println!(
            "  {:>2}. {:<40} {:.4}",
            number(&item["rank"]),
            named(item),
            Figure(number(&item["score"]))
        );
    }

    let rate = json!({ "ratings": [{ "user_id": "me", "item_id": first["item_id"], "value": 5 }] });
    commands.begin("Try it from another terminal:");
    for (method, request) in [
        ("RecommendationService/Recommend", &recommend),
        ("RecommendationService/PredictRatings", &predict),
        ("RecommendationService/ListSimilarItems", &similar_to),
        ("RatingService/UpsertRatings", &rate),
        ("RecommendationService/Recommend", &json!({ "user_id": "me" })),
        ("ModelService/GetServingStatus", &json!({})),
    ] {
        commands.call(method, request);
    }
    Ok(())
}

fn print_prediction(rating: &Value) {
    let explanation = &rating["explanation"];
    println!(
        "  {:.2} from {} neighbors:",
        Figure(number(&rating["value"])),
        number(&rating["support"])
    );
    let term = |value: f64, what: String| println!("  {:>+8.3}  {what}", Figure(value));
    term(number(&explanation["global_mean"]), "mean of all ratings".to_owned());
    term(
        number(&explanation["user_bias"]),
        "this customer's difference from that mean".to_owned(),
    );
    term(
        number(&explanation["item_bias"]),
        "this item's difference from that mean".to_owned(),
    );
    let items = array(&explanation["items"]);
    let (shown, others) = items.split_at_checked(MAX_TERMS).unwrap_or((items, &[]));
    for item in shown {
        let what = format!(
            "from their rating of {:.2} for {}",
            number(&item["rating"]),
            named(item)
        );
        term(number(&item["contribution"]), what);
    }
    if !others.is_empty() {
        let contribution = others.iter().map(|item| number(&item["contribution"])).sum();
        term(contribution, format!("from {} other items", others.len()));
    }
    if let similar @ Value::Object(_) = &explanation["similar_users"] {
        term(
            number(&similar["contribution"]),
            format!("from {} similar customers", number(&similar["users"])),
        );
    }
    if number(&explanation["clamping"]) != 0.0 {
        term(
            number(&explanation["clamping"]),
            "to stay within the rating scale".to_owned(),
        );
    }
}

/// Describes the largest parts of a score.
fn reason(explanation: &Value) -> String {
    let items: Vec<String> = array(&explanation["items"]).iter().take(2).map(named).collect();
    let users = number(&explanation["similar_users"]["users"]);
    match (items.is_empty(), users > 0.0) {
        (false, true) => format!(
            "they bought {}, and {users} similar customers bought this",
            items.join(", ")
        ),
        (false, false) => format!("they bought {}", items.join(", ")),
        (true, _) => format!("{users} similar customers bought this"),
    }
}
