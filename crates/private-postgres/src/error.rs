//! The reasons why a private PostgreSQL cannot run, each with what the reader of the message can do about it.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    #[error("PostgreSQL is not installed (looked in {looked_in}): {remedy}")]
    NotInstalled { looked_in: String, remedy: String },
    #[error("{folder} holds PostgreSQL {major}, and {oldest} or newer is needed: {remedy}")]
    TooOld {
        folder: PathBuf,
        major: u32,
        oldest: u32,
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
        "PostgreSQL runs as the user {account}, who may not enter {folder}: run `chmod o+x {folder}`, or choose a data \
         folder elsewhere"
    )]
    Untraversable { folder: PathBuf, account: String },
    #[error(
        "{folder} belongs to the user {owner}, and PostgreSQL would run as {account}: run this program as {owner}, or \
         choose another data folder"
    )]
    WrongOwner {
        folder: PathBuf,
        owner: String,
        account: String,
    },
    #[error(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as: create one, or run \
         this program as another user"
    )]
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
    #[error("PostgreSQL was not ready after {seconds} s; see {log}")]
    NotReady { log: PathBuf, seconds: u64 },
    #[error("process {pid}, the PostgreSQL of an earlier run, still uses {folder} and cannot be ended")]
    StillRunning { folder: PathBuf, pid: i32 },
}

impl PrivatePostgresError {
    /// Makes the function for `map_err` that says which action on which path failed.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
