//! `likemind export-user`: writes everything that is held on one user, as JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::database::{Database, Purpose};
use super::ids::user;
use super::{Exit, process};
use crate::app::user_export::{ExportRequest, UserExport};
use crate::config::Config;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use domain::id::UserId;

#[derive(Debug, clap::Args)]
pub(super) struct ExportUserArgs {
    /// The user's id
    #[arg(value_name = "ID", value_parser = user)]
    user: UserId,
    /// File to write, which must not exist yet; only its owner may read it [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The reason, for the audit; it stays when the user is erased, so do not name the user in it
    #[arg(long, default_value = "", value_parser = reason)]
    reason: String,
}

pub(super) async fn run(args: ExportUserArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let exported = export(&database.pool, &config, &args).await;
    database.close().await?;
    exported.map(|()| Exit::Done)
}

async fn export(pool: &Pool, config: &Config, args: &ExportUserArgs) -> anyhow::Result<()> {
    let live = Live::read(pool.clone(), config.live.clone(), config.privacy.consent()).await?;
    let request = ExportRequest {
        user: args.user.clone(),
        reason: args.reason.clone(),
        actor: process::actor(),
    };
    let Some(mut export) = UserExport::open(pool, live.view(), config.holding_rules(), request).await? else {
        bail!("there is no user {}", args.user);
    };
    let written = match &args.output {
        Some(path) => write_file(&mut export, path).await,
        None => write_all(&mut export, &mut io::stdout(), "standard output").await,
    };
    export.close().await?;
    written
}

/// Writes a new file. One that is not whole is removed.
async fn write_file(export: &mut UserExport, path: &Path) -> anyhow::Result<()> {
    let created = create(path).with_context(|| format!("{} cannot be created", path.display()))?;
    let mut file = BufWriter::new(created);
    let written = write_all(export, &mut file, &path.display().to_string()).await;
    if written.is_err() {
        // It may be gone already.
        let _ = fs::remove_file(path);
    }
    written
}

/// Creates a file that only its owner may read and write.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// `name`: what is written, for errors of `writer`.
async fn write_all(export: &mut UserExport, writer: &mut impl Write, name: &str) -> anyhow::Result<()> {
    let failed = || format!("{name} cannot be written");
    while let Some(part) = export.next().await? {
        writer.write_all(&part).with_context(failed)?;
    }
    writer.flush().with_context(failed)
}

fn reason(text: &str) -> Result<String, domain::error::InvalidField> {
    domain::item::check_text("reason", text.to_owned())
}
