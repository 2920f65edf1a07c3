//! Making the data: `initdb`, all or nothing.

use std::fs::{self, File};
use std::path::Path;

use super::error::PrivatePostgresError;
use super::folder;
use super::process;
use super::server::ServerConfig;

/// Strings compare by their bytes.
const LOCALE: &str = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };

/// The names of folders in which an `initdb` is at work, or was interrupted, begin with this.
const UNFINISHED: &str = "postgres.new-";

/// Makes the data and the superuser's password, unless they are there. The caller holds the lock.
///
/// # Errors
/// [`PrivatePostgresError::Program`] with the output of `initdb`.
pub fn ensure(config: &ServerConfig) -> Result<(), PrivatePostgresError> {
    let root = &config.folder.root;
    remove_unfinished(root);
    let cluster = config.folder.cluster();
    if cluster.exists() {
        return Ok(());
    }
    tracing::info!(
        folder = %root.display(),
        version = config.programs.major,
        user = config.account.name,
        "making the data of a private PostgreSQL"
    );
    // The `initdb` of a killed run may still be at work, so each has a name of its own.
    let name = format!("{UNFINISHED}{}", folder::secret()?);
    let password = root.join(format!("{name}.password"));
    let unfinished = root.join(name);
    folder::make_private(&unfinished, &config.account).map_err(PrivatePostgresError::io("make", &unfinished))?;
    folder::write_private(&password, &folder::secret()?, &config.account)
        .map_err(PrivatePostgresError::io("write", &password))?;
    run_initdb(config, &unfinished, &password)?;
    for (from, to) in [(&password, config.folder.password_file()), (&unfinished, cluster)] {
        fs::rename(from, &to).map_err(PrivatePostgresError::io("make", &to))?;
    }
    if config.durable {
        File::open(root)
            .and_then(|root| root.sync_all())
            .map_err(PrivatePostgresError::io("write", root))?;
    }
    Ok(())
}

fn run_initdb(config: &ServerConfig, cluster: &Path, password: &Path) -> Result<(), PrivatePostgresError> {
    let program = config.programs.initdb();
    let mut command = process::command(&program, &config.account);
    command
        .arg("--pgdata")
        .arg(cluster)
        .arg("--pwfile")
        .arg(password)
        .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
        .args(["--encoding=UTF8", "--data-checksums", "--locale", LOCALE]);
    if !config.durable {
        command.arg("--no-sync");
    }
    let output = command.output().map_err(PrivatePostgresError::io("run", &program))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(PrivatePostgresError::Program {
        program,
        output: String::from_utf8_lossy(&text).trim().to_owned(),
    })
}

fn remove_unfinished(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let path = entry.path();
            // An `initdb` that is just ending removes its files too; the next start removes the rest.
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}
