//! `likemind erase`: erases users and waits until nothing is found of them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use domain::id::UserId;
use domain::item::check_text;
use serde_json::json;

use super::database::{Database, Purpose};
use super::{Exit, ids, process};
use crate::app::erasure::Eraser;
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::erasures::{self, Request, StageCounts};

/// The most erasures that are recorded in one transaction.
const BATCH: usize = 1_000;

/// How long to wait before looking at the stages again.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct EraseArgs {
    /// The user to erase
    #[arg(value_name = "USER_ID", value_parser = ids::user, required_unless_present_any = ["file", "resume"],
          conflicts_with_all = ["file", "resume"])]
    user: Option<UserId>,
    /// File with the id of a user on each line, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    file: Option<PathBuf>,
    /// Only go on with erasures that were asked for before, and search again for ids that were found somewhere
    #[arg(long)]
    resume: bool,
    /// The reason, for the record; it must not name the user
    #[arg(long, default_value = "", value_parser = reason)]
    reason: String,
    /// Only ask: running servers do the rest
    #[arg(long, conflicts_with = "resume")]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    check_text("reason", text.to_owned()).map_err(|error| error.message)
}

pub(super) async fn run(args: EraseArgs, config: Config) -> anyhow::Result<Exit> {
    let interrupt = process::shutdown_requested();
    let users = match (&args.user, &args.file) {
        (Some(user), _) => vec![user.clone()],
        (None, Some(file)) => read_users(file)?,
        (None, None) => Vec::new(),
    };
    let database = Database::open(&config, Purpose::Job).await?;
    let eraser = Eraser {
        pool: database.pool.clone(),
        consent_proof_days: config.privacy.consent_proof_days,
        // Whoever waits for the command has named all users.
        settle: Duration::ZERO,
        actor: process::actor(),
    };
    let erased = tokio::select! {
        erased = erase(&eraser, &users, &args) => erased,
        () = interrupt.cancelled() => {
            eprintln!(
                "Interrupted. What was asked for goes on while a server runs, or with `likemind erase --resume`. Users of a file \
                 that were not asked for yet are erased by the same command."
            );
            Ok(Exit::Interrupted)
        }
    };
    database.close().await?;
    erased
}

/// Reads ids, one on each line.
///
/// # Errors
/// Names the line that is no id.
fn read_users(file: &Path) -> anyhow::Result<Vec<UserId>> {
    let name = file.display();
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text),
        false => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.with_context(|| format!("{name} cannot be read"))?;
    let mut users = BTreeSet::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if !line.is_empty() {
            let user =
                UserId::asked(line).map_err(|error| anyhow::anyhow!("{name}, line {number}: {}", error.message))?;
            users.insert(user);
        }
    }
    ensure!(
        !users.is_empty(),
        "{name} must hold the id of a user on each line, has none"
    );
    Ok(users.into_iter().collect())
}

async fn erase(eraser: &Eraser, users: &[UserId], args: &EraseArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let received = match args.resume {
        true => open(&eraser.pool).await?,
        false => receive(&eraser.pool, users, args, &eraser.actor).await?,
    };
    if args.no_wait {
        print(
            args,
            &received,
            erasures::count(&eraser.pool, &received.erasures).await?,
            started,
        );
        return Ok(Exit::Done);
    }
    let counts = wait(eraser, &received.erasures, args).await?;
    print(args, &received, counts, started);
    for (id, is_verified, places) in erasures::findings(&eraser.pool, &received.erasures).await? {
        match is_verified {
            true => eprintln!("erasure {id}: {places} has the same text; if it means the user there, remove it"),
            false => eprintln!("erasure {id}: the id of the user is still in {places}"),
        }
    }
    if counts.found == 0 {
        return Ok(Exit::Done);
    }
    bail!("remove the ids from there, then run `likemind erase --resume`")
}

/// The erasures that the command waits for.
struct Asked {
    erasures: Vec<i64>,
    /// The number of users of whom nothing was stored.
    unknown: usize,
}

async fn open(pool: &Pool) -> anyhow::Result<Asked> {
    let mut ids = Vec::new();
    loop {
        let page = erasures::open(pool, ids.last().copied().unwrap_or(0), BATCH as i64).await?;
        if page.is_empty() {
            let (erasures, unknown) = (ids, 0);
            return Ok(Asked { erasures, unknown });
        }
        ids.extend(page.iter().map(|erasure| erasure.id));
    }
}

async fn receive(pool: &Pool, users: &[UserId], args: &EraseArgs, actor: &str) -> anyhow::Result<Asked> {
    let Some(key) = pool.erasure_key() else {
        bail!(
            "privacy.erasure_key_file is not set: write a random key into a file outside the database, for example with \
             `openssl rand -hex 32 > erasure.key`, keep a copy of it, and set its path here and on every server"
        );
    };
    let mut asked = Asked {
        erasures: Vec::with_capacity(users.len()),
        unknown: 0,
    };
    for batch in users.chunks(BATCH) {
        let request = Request {
            users: batch,
            request_id: None,
            reason: &args.reason,
            actor,
        };
        let received = erasures::receive(pool, key, &request).await?;
        asked.unknown += received.iter().filter(|received| !received.was_known).count();
        asked
            .erasures
            .extend(received.iter().map(|received| received.erasure_id));
    }
    Ok(asked)
}

/// Drives the erasures until each is verified or its id was found somewhere.
async fn wait(eraser: &Eraser, erasures: &[i64], args: &EraseArgs) -> anyhow::Result<StageCounts> {
    let mut shown = StageCounts::default();
    let mut again = true;
    loop {
        again &= !eraser.step(again).await?;
        let counts = erasures::count(&eraser.pool, erasures).await?;
        if !again && counts.verified + counts.found >= erasures.len() as u64 {
            return Ok(counts);
        }
        if counts != shown && !args.json {
            eprintln!("{}", progress(&counts));
            shown = counts;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn progress(counts: &StageCounts) -> String {
    let stages = [
        (counts.received, "received, until every server masks them"),
        (counts.masked, "masked"),
        (counts.rows_deleted, "with deleted rows, until the snapshots are clean"),
        (counts.snapshots_clean, "with clean snapshots, until they are verified"),
        (counts.verified, "verified"),
    ];
    let stages = stages.into_iter().filter(|(count, _)| *count > 0);
    stages
        .map(|(count, stage)| format!("{count} {stage}"))
        .collect::<Vec<_>>()
        .join("; ")
}

fn print(args: &EraseArgs, asked: &Asked, counts: StageCounts, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let value = json!({
            "erasure_ids": asked.erasures,
            "unknown": asked.unknown,
            "received": counts.received,
            "masked": counts.masked,
            "rows_deleted": counts.rows_deleted,
            "snapshots_clean": counts.snapshots_clean,
            "verified": counts.verified,
            "seconds": seconds,
        });
        println!("{value:#}");
        return;
    }
    match (asked.erasures.first(), asked.erasures.last()) {
        (Some(first), Some(last)) if first == last => println!("erasure {first}"),
        (Some(first), Some(last)) => println!("{} erasures, {first} to {last}", asked.erasures.len()),
        _ => println!("no erasure is open"),
    }
    if !asked.erasures.is_empty() {
        println!("  {} ({seconds:.1} s)", progress(&counts));
    }
    if asked.unknown > 0 {
        println!("  nothing was stored of {} of the users", asked.unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_an_id_on_each_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |text: &[u8], expected: Result<&[&str], &str>| {
            std::fs::write(file.path(), text).unwrap();
            match (read_users(file.path()), expected) {
                (Ok(users), Ok(expected)) => {
                    assert_eq!(users.iter().map(UserId::as_str).collect::<Vec<_>>(), expected);
                }
                (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
                (users, expected) => panic!("{users:?} is not {expected:?}"),
            }
        };
        check(b"u2\r\nu1\n\n u2 \n", Ok(&["u1", "u2"]));
        check("\u{feff}u 1".as_bytes(), Ok(&["u 1"]));
        check(b"\n \n", Err("has none"));
        check(b"u1\n\x01", Err("line 2: must not contain control characters"));
        check(b"u1\n\xff", Err("cannot be read"));
    }
}
