//! Prints how groups of users were selected by a campaign.

use anyhow::bail;
use serde_json::{Value, json};

use crate::app::campaign_bias::{self, CampaignBias, CampaignBiasError};
use crate::config::Config;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use coupons::selection::{RateRatio, Selection};
use domain::id::CampaignId;

pub(super) async fn print(pool: &Pool, config: &Config, id: &CampaignId, as_json: bool) -> anyhow::Result<()> {
    let live = Live::read(pool.clone(), config.live.clone(), config.privacy.consent()).await?;
    let bias = match campaign_bias::report(pool, &live, &config.bias, id, None).await {
        Err(CampaignBiasError::NoSnapshot(status)) => bail!(status.without_snapshot()),
        bias => bias?,
    };
    match as_json {
        true => println!("{:#}", to_json(id, &bias)),
        false => print_table(id, &bias),
    }
    Ok(())
}

fn print_table(id: &CampaignId, bias: &CampaignBias) {
    println!(
        "Campaign {id}: {} users eligible, {} targeted, {} redeemed",
        bias.eligible, bias.targeted, bias.redeemed
    );
    if bias.attributes.is_empty() {
        println!("Name attributes in bias.attributes to compare groups of users.");
    }
    for selection in &bias.attributes {
        println!(
            "  {:<20} {:>9} {:>9} {:>9} {:>10} {:>10}",
            selection.attribute, "eligible", "targeted", "redeemed", "selected", "redeeming"
        );
        let share = |count: u64, of: u64| match of {
            0 => "-".to_owned(),
            of => format!("{:.1} %", 100.0 * count as f64 / of as f64),
        };
        for group in &selection.groups {
            println!(
                "  {:<20} {:>9} {:>9} {:>9} {:>10} {:>10}",
                group.value,
                group.eligible,
                group.targeted,
                group.redeemed,
                share(group.targeted, group.eligible),
                share(group.redeemed, group.targeted)
            );
        }
        println!("  {:<20} {:>9}", "(not shown)", selection.hidden_users);
        let ratios = [
            ("selection", &selection.selection_rate),
            ("redemption", &selection.redemption_rate),
        ];
        for (rate, ratio) in ratios
            .into_iter()
            .filter_map(|(rate, ratio)| Some((rate, ratio.as_ref()?)))
        {
            println!(
                "  {rate} rate of {}, the least, is {:.2} of that of {}, the largest (95 % interval: {:.2} to {:.2})",
                ratio.least, ratio.ratio, ratio.most, ratio.low, ratio.high
            );
        }
    }
}

fn to_json(id: &CampaignId, bias: &CampaignBias) -> Value {
    let ratio = |ratio: &RateRatio| {
        json!({
            "least": ratio.least, "most": ratio.most, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high,
        })
    };
    let attribute = |selection: &Selection| {
        let groups = selection.groups.iter().map(|group| {
            json!({
                "value": group.value,
                "eligible": group.eligible,
                "targeted": group.targeted,
                "redeemed": group.redeemed,
            })
        });
        json!({
            "attribute": selection.attribute,
            "groups": groups.collect::<Value>(),
            "hidden_users": selection.hidden_users,
            "selection_rate": selection.selection_rate.as_ref().map(ratio),
            "redemption_rate": selection.redemption_rate.as_ref().map(ratio),
        })
    };
    json!({
        "campaign_id": id.as_str(),
        "eligible": bias.eligible,
        "targeted": bias.targeted,
        "redeemed": bias.redeemed,
        "attributes": bias.attributes.iter().map(attribute).collect::<Value>(),
    })
}
