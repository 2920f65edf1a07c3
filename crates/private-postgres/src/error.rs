//! Why there is no private PostgreSQL, and what the reader of the message can do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::programs::OLDEST_MAJOR;

#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    #[error("PostgreSQL is not installed (looked in {looked_in}): {remedy}, or set database.url")]
    NotInstalled { looked_in: String, remedy: String },
    #[error("{folder} holds PostgreSQL {major}, and {OLDEST_MAJOR} or newer is needed: {remedy}, or set database.url")]
    TooOld {
        folder: PathBuf,
        major: u32,
        remedy: String,
    },
    #[error(
        "the data in {folder} was made by PostgreSQL {made_by}, and the installed one is {installed}: install \
         PostgreSQL {made_by}, name the folder of its programs in PG_BIN, or choose another data folder"
    )]
    OtherVersion {
        folder: PathBuf,
        made_by: u32,
        installed: u32,
    },
    #[error(
        "PostgreSQL runs as the user {account}, who may not enter {folder}: `chmod o+x {folder}`, or choose a data \
         folder elsewhere"
    )]
    Untraversable { folder: PathBuf, account: String },
    #[error(
        "{folder} belongs to the user {owner}, and PostgreSQL would run as {account}: run likemind as {owner}, or choose \
         another data folder"
    )]
    WrongOwner {
        folder: PathBuf,
        owner: String,
        account: String,
    },
    #[error("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")]
    NoAccount,
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed: {output}")]
    Program { program: PathBuf, output: String },
    #[error("PostgreSQL ended while it was starting; the end of {log}:\n{tail}")]
    Ended { log: PathBuf, tail: String },
    #[error("PostgreSQL was not ready after {seconds} s; {log} says more")]
    NotReady { log: PathBuf, seconds: u64 },
    #[error("the PostgreSQL of an earlier run, process {pid}, holds {folder} and does not end")]
    StillRunning { folder: PathBuf, pid: i32 },
}

impl PrivatePostgresError {
    /// For `map_err`: what was being done, and to what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
