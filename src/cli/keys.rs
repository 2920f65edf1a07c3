//! `likemind keys`: creates, lists and revokes API keys.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::json;

use super::database::{Database, Purpose};
use super::{Exit, process};
use crate::app::random::random_bytes;
use crate::config::Config;
use crate::store::access::keys::{self, KeyRecord, NewKey};
use crate::store::postgres::pool::Pool;
use domain::access::Role;
use domain::api_key::{ApiKey, KeyId};
use domain::error::InvalidField;
use domain::id::MerchantId;
use domain::time::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key and print it, once; servers require keys as soon as there is one
    Create {
        /// The role of its callers: service, ingest, marketer, operator or admin
        #[arg(long)]
        role: Role,
        /// The only merchant that a marketer may see [default: all]
        #[arg(long, value_name = "ID", value_parser = merchant)]
        merchant: Option<MerchantId>,
        /// When it expires: an instant (2027-01-31T00:00:00Z) or a number of days from now (90d) [default: never]
        #[arg(long, value_name = "WHEN", value_parser = expiry)]
        expires: Option<Timestamp>,
        /// A note about its use
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List all keys, without their secrets
    List,
    /// Revoke a key; all servers refuse it within live.refresh_interval_ms
    Revoke {
        /// The id of the key, as keys list shows it
        #[arg(value_name = "ID")]
        key: String,
    },
}

pub(super) async fn run(args: KeysArgs, config: Config) -> anyhow::Result<Exit> {
    if let Action::Create {
        role,
        merchant: Some(_),
        ..
    } = &args.action
        && *role != Role::Marketer
    {
        eprintln!("error: --merchant needs the role marketer, not {role}");
        return Ok(Exit::Usage);
    }
    let database = Database::open(&config, Purpose::Job).await?;
    let acted = act(&database.pool, args).await;
    database.close().await?;
    acted.map(|()| Exit::Done)
}

async fn act(pool: &Pool, args: KeysArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Create {
            role,
            merchant,
            expires,
            note,
        } => {
            let key = random_key()?;
            let new = NewKey {
                id: key.id.clone(),
                secret_hash: key.secret_hash(),
                role,
                merchant,
                note,
                expires_at: expires,
            };
            keys::create(pool, &new, &process::actor()).await?;
            match args.json {
                true => println!("{:#}", json!({ "id": key.id.as_str(), "key": key.expose() })),
                false => {
                    println!("{}", key.expose());
                    eprintln!("The key is not shown again. Callers send it as `authorization: Bearer <key>`.");
                }
            }
        }
        Action::List => {
            let records = keys::list(pool).await?;
            match args.json {
                true => println!("{:#}", json!(records.iter().map(to_json).collect::<Vec<_>>())),
                false => print(&records),
            }
        }
        Action::Revoke { key } => {
            keys::revoke(pool, &KeyId::new(&key), &process::actor()).await?;
            if args.json {
                println!("{:#}", json!({ "revoked": key }));
            }
        }
    }
    Ok(())
}

/// Generates a key from random bytes of the operating system.
pub(super) fn random_key() -> anyhow::Result<ApiKey> {
    Ok(ApiKey::new(random_bytes()?))
}

fn merchant(text: &str) -> Result<MerchantId, InvalidField> {
    MerchantId::new(text)
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let at = match days {
        Some(days) => Utc::now().checked_add_signed(chrono::Duration::days(days.into())),
        None => DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc()),
    };
    match at {
        Some(at) if at > Utc::now() => Ok(at),
        Some(_) => Err("must be in the future".to_owned()),
        None => Err(
            "must be an instant, for example 2027-01-31T00:00:00Z, or a number of days from now, for example 90d"
                .to_owned(),
        ),
    }
}

fn state(record: &KeyRecord) -> &'static str {
    match (record.revoked_at, record.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(expires_at)) if expires_at <= Utc::now() => "expired",
        (None, _) => "good",
    }
}

fn print(records: &[KeyRecord]) {
    println!(
        "{:<12} {:<8} {:<8} {:<16} {:<20} note",
        "id", "role", "state", "merchant", "expires"
    );
    for record in records {
        println!(
            "{:<12} {:<8} {:<8} {:<16} {:<20} {}",
            record.id.as_str(),
            record.role.as_str(),
            state(record),
            record.merchant.as_ref().map_or("", MerchantId::as_str),
            record
                .expires_at
                .map_or_else(String::new, |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
            record.note
        );
    }
}

fn to_json(record: &KeyRecord) -> serde_json::Value {
    json!({
        "id": record.id.as_str(),
        "role": record.role,
        "state": state(record),
        "merchant_id": record.merchant.as_ref().map(MerchantId::as_str),
        "note": record.note,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_an_instant_or_a_number_of_days() {
        let days = expiry("90d").unwrap() - Utc::now();
        assert!((89..=90).contains(&days.num_days()));
        assert_eq!(
            expiry("2999-01-31T00:00:00+01:00").unwrap().to_rfc3339(),
            "2999-01-30T23:00:00+00:00"
        );
        for wrong in ["", "d", "-1d", "2999-01-31", "2000-01-01T00:00:00Z", "0d"] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_differ() {
        assert_ne!(random_key().unwrap().expose(), random_key().unwrap().expose());
    }
}
