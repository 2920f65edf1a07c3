//! The data folder, its content, and who may touch it.
//!
//! | Path | Owner | Content |
//! |---|---|---|
//! | `postgres/` | PostgreSQL's user | the data |
//! | `postgres.password` | PostgreSQL's user, 0600 | the password of the superuser `postgres` on the loopback port |
//! | `postgres.lock` | the folder's, 0600 | the port of the server; locked by the process that owns it |
//! | `postgres.log` | the folder's, 0600 | the server's log |
//! | `socket/` | PostgreSQL's user, 0700 | the Unix socket |
//!
//! Root does not give the data folder itself to PostgreSQL's user: root must not write where others place links.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{self, Path, PathBuf};

use super::account::{self, Account};
use super::error::PrivatePostgresError;

/// A log that is larger than this at a start is set aside.
const LARGEST_LOG_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Folder {
    /// Absolute, and free of symbolic links as far as it exists.
    pub root: PathBuf,
}

impl Folder {
    /// Resolves `data_dir`, which need not exist yet.
    ///
    /// # Errors
    /// When the working directory is gone or a link leads nowhere.
    pub fn at(data_dir: &Path) -> Result<Self, PrivatePostgresError> {
        let absolute = path::absolute(data_dir).map_err(PrivatePostgresError::io("find", data_dir))?;
        let existing = nearest_existing(&absolute);
        let canonical = existing
            .canonicalize()
            .map_err(PrivatePostgresError::io("find", existing))?;
        let root = match absolute.strip_prefix(existing) {
            Ok(rest) if rest.as_os_str().is_empty() => canonical,
            Ok(rest) => canonical.join(rest),
            Err(_) => unreachable!("an ancestor is a prefix"),
        };
        Ok(Self { root })
    }

    pub fn cluster(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub fn password_file(&self) -> PathBuf {
        self.root.join("postgres.password")
    }

    pub fn log_file(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    pub fn nearest_existing(&self) -> &Path {
        nearest_existing(&self.root)
    }

    /// Reads which major version of PostgreSQL made the data; `None` where there is no data.
    ///
    /// # Errors
    /// When the data is there without its version.
    pub fn made_by(&self) -> Result<Option<u32>, PrivatePostgresError> {
        let cluster = self.cluster();
        if !cluster.exists() {
            return Ok(None);
        }
        let file = cluster.join("PG_VERSION");
        let text = fs::read_to_string(&file).map_err(PrivatePostgresError::io("read", &file))?;
        match text.trim().split('.').next().map(str::parse) {
            Some(Ok(major)) => Ok(Some(major)),
            _ => Err(PrivatePostgresError::io("find a version in", &file)(
                io::ErrorKind::InvalidData.into(),
            )),
        }
    }

    /// Opens an empty folder of root's own, such as one made by `mktemp -d`, to PostgreSQL's user.
    ///
    /// # Errors
    /// When the folder cannot be read or changed.
    pub fn open_if_empty(&self) -> Result<(), PrivatePostgresError> {
        let io = PrivatePostgresError::io;
        if !account::is_root() || !self.root.is_dir() {
            return Ok(());
        }
        let mode = fs::metadata(&self.root).map_err(io("read", &self.root))?;
        let mut entries = fs::read_dir(&self.root).map_err(io("read", &self.root))?;
        if mode.uid() == 0 && entries.next().is_none() {
            let opened = Permissions::from_mode(mode.mode() & 0o7777 | 0o011);
            fs::set_permissions(&self.root, opened).map_err(io("open", &self.root))?;
        }
        Ok(())
    }

    /// Makes the missing folders: as root so that PostgreSQL's user can pass, else for the current user alone.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn make(&self) -> Result<(), PrivatePostgresError> {
        let mut missing: Vec<&Path> = self.root.ancestors().take_while(|folder| !folder.exists()).collect();
        missing.reverse();
        for folder in missing {
            let mode = match (account::is_root(), folder == self.root) {
                (true, true) => 0o711,
                (false, true) => 0o700,
                (_, false) => 0o755,
            };
            match DirBuilder::new().mode(0o700).create(folder) {
                // The umask does not apply to this call.
                Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(PrivatePostgresError::io("make", folder))?;
        }
        Ok(())
    }

    /// Opens the log to append to, and returns its length so far.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_log(&self) -> Result<(File, u64), PrivatePostgresError> {
        let path = self.log_file();
        let open = || {
            open_own(&path, OpenOptions::new().append(true))
                .and_then(|file| Ok((file.metadata()?.len(), file)))
                .map_err(PrivatePostgresError::io("open", &path))
        };
        let (mut length, mut file) = open()?;
        if length > LARGEST_LOG_BYTES {
            let aside = self.root.join("postgres.log.old");
            fs::rename(&path, aside).map_err(PrivatePostgresError::io("rename", &path))?;
            (length, file) = open()?;
        }
        Ok((file, length))
    }
}

/// The lock of the process that owns the server. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(folder: &Folder) -> Result<Self, PrivatePostgresError> {
        let path = folder.root.join("postgres.lock");
        let file = open_own(&path, OpenOptions::new().read(true).write(true))
            .map_err(PrivatePostgresError::io("open", &path))?;
        Ok(Self { file, path })
    }

    /// Takes the lock if it is free, and returns whether this process holds it now.
    ///
    /// # Errors
    /// When the file system has no locks.
    pub fn try_take(&self) -> Result<bool, PrivatePostgresError> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(PrivatePostgresError::io("lock", &self.path)(error)),
        }
    }

    /// Returns the port of the last server, which stands in the URLs of all processes that use it.
    pub fn port(&self) -> Option<u16> {
        let mut text = String::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn set_port(&self, port: u16) -> Result<(), PrivatePostgresError> {
        let mut file = &self.file;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{port}"))
            .map_err(PrivatePostgresError::io("write", &self.path))
    }
}

/// Makes a new folder for PostgreSQL's user alone.
pub fn make_private(folder: &Path, account: &Account) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    give(folder, account)
}

/// Makes a new file for PostgreSQL's user alone.
pub fn write_private(file: &Path, text: &str, account: &Account) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?
        .write_all(text.as_bytes())?;
    give(file, account)
}

/// Returns 192 random bits as text that needs no quoting anywhere.
///
/// # Errors
/// When the system's random source cannot be read.
pub fn secret() -> Result<String, PrivatePostgresError> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| {
        let source = io::Error::other(error.to_string());
        PrivatePostgresError::io("read", Path::new("the system's random source"))(source)
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens a file of the data folder, and makes it if it is absent, for the owner of the folder alone. Follows no link.
fn open_own(file: &Path, how: &mut OpenOptions) -> io::Result<File> {
    how.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    match how.open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match how.clone().create_new(true).open(file) {
        Ok(made) if account::is_root() => {
            let owner = file.parent().unwrap_or(file).metadata()?;
            fchown(&made, Some(owner.uid()), Some(owner.gid()))?;
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => how.open(file),
        result => result,
    }
}

fn give(path: &Path, account: &Account) -> io::Result<()> {
    if account::is_root() {
        lchown(path, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"))
}
