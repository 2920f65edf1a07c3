//! The folder of the Unix socket: in the data folder, or below `/tmp` when its path would be too long there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::account::Account;
use super::error::PrivatePostgresError;
use super::folder::{self, Folder};

/// Not `TMPDIR`, which may itself be too long.
const SHORT_PARENT: &str = "/tmp";

/// Of a socket's path (`sockaddr_un`), without the byte that ends it.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A socket folder in use. One below `/tmp` is locked while its server runs, which tells it from those left behind,
/// and is removed at the end.
#[derive(Debug)]
pub struct Sockets {
    pub path: PathBuf,
    lock: Option<File>,
}

impl Sockets {
    /// An empty folder for the server of `folder`, at the same place every time.
    ///
    /// No server may be running.
    ///
    /// # Errors
    /// When it cannot be made, also because another user has taken its place.
    pub fn make(folder: &Folder, account: &Account) -> Result<Self, PrivatePostgresError> {
        sweep(Path::new(SHORT_PARENT), account);
        let path = path_for(&folder.root, account);
        if !path.starts_with(&folder.root) {
            let lock = make_locked(&path, account).map_err(PrivatePostgresError::io("make", &path))?;
            return Ok(Self { path, lock: Some(lock) });
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => folder::make_private(&path, account),
        }
        .map_err(PrivatePostgresError::io("make", &path))?;
        Ok(Self { path, lock: None })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What remains is swept at the next start.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The socket of the server that listens on `port`.
pub fn socket(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

fn path_for(root: &Path, account: &Account) -> PathBuf {
    let inside = root.join("socket");
    let fits = socket(&inside, u16::MAX).as_os_str().len() <= LONGEST_PATH;
    // Other than UTF-8 cannot stand in a URL.
    if fits && inside.to_str().is_some() {
        return inside;
    }
    let hash = xxh3_64(root.as_os_str().as_encoded_bytes());
    Path::new(SHORT_PARENT).join(format!("{}{hash:016x}", prefix(account)))
}

fn prefix(account: &Account) -> String {
    format!("likemind-socket-{}-", account.uid)
}

/// An empty folder of `account` at `path`, locked by us.
fn make_locked(path: &Path, account: &Account) -> io::Result<File> {
    loop {
        match folder::make_private(path, account) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(path)?;
        if !found.is_dir() || found.uid() != account.uid || found.mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to someone else",
            ));
        }
        let lock = File::open(path)?;
        lock.lock_shared()?;
        // Not the one that a sweep has just removed.
        if fs::symlink_metadata(path).is_ok_and(|found| found.ino() == lock.metadata().map_or(0, |locked| locked.ino()))
        {
            for entry in fs::read_dir(path)? {
                fs::remove_file(entry?.path())?;
            }
            return Ok(lock);
        }
    }
}

/// Removes the folders whose servers are gone.
fn sweep(parent: &Path, account: &Account) {
    let prefix = prefix(account);
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
            && entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == account.uid);
        if ours
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            tracing::debug!(folder = %entry.path().display(), "removing a socket folder that was left behind");
            // Someone else may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_account() -> Account {
        let folder = tempfile::tempdir().unwrap();
        let found = folder.path().metadata().unwrap();
        Account {
            uid: found.uid(),
            gid: found.gid(),
            name: String::new(),
        }
    }

    #[test]
    fn a_socket_path_always_fits() {
        let account = own_account();
        let check = |root: &str, inside: bool| {
            let path = path_for(Path::new(root), &account);
            assert_eq!(path.starts_with(root), inside, "{}", path.display());
            assert!(socket(&path, u16::MAX).as_os_str().len() <= LONGEST_PATH);
        };
        check("/var/lib/likemind", true);
        check(&format!("/{}", "a".repeat(LONGEST_PATH - 23)), true);
        check(&format!("/{}", "a".repeat(LONGEST_PATH - 22)), false);
        assert_ne!(
            path_for(&Path::new("/").join("a".repeat(200)), &account),
            path_for(&Path::new("/").join("b".repeat(200)), &account)
        );
    }

    #[test]
    fn sweeps_what_no_server_uses() {
        let parent = tempfile::tempdir().unwrap();
        let account = own_account();
        let folder = |name: &str| parent.path().join(format!("{}{name}", prefix(&account)));
        let used = make_locked(&folder("used"), &account).unwrap();
        drop(make_locked(&folder("left"), &account).unwrap());
        fs::write(folder("left").join(".s.PGSQL.5432.lock"), "").unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();

        sweep(parent.path(), &account);
        assert!(folder("used").exists());
        assert!(!folder("left").exists());
        assert!(other.exists());

        drop(used);
        sweep(parent.path(), &account);
        assert!(!folder("used").exists());
    }

    #[test]
    fn refuses_a_folder_that_others_can_enter() {
        let parent = tempfile::tempdir().unwrap();
        let planted = parent.path().join("planted");
        std::os::unix::fs::symlink("/tmp", &planted).unwrap();
        assert_eq!(
            make_locked(&planted, &own_account()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
