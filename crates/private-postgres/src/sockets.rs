//! The folder of the Unix socket: in the data folder, or below `/tmp` when its path would be too long there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::account::Account;
use super::error::PrivatePostgresError;
use super::folder::{self, Folder};

/// The parent of folders with short paths. `TMPDIR` would not do, as it may itself be too long.
const SHORT_PARENT: &str = "/tmp";

/// The longest path of a socket (`sockaddr_un`), without the byte that ends it.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A socket folder in use. One below `/tmp` is removed when this value is dropped; one that a killed process left there
/// is taken again by the next start over the same data.
#[derive(Debug)]
pub struct Sockets {
    pub path: PathBuf,
    is_below_tmp: bool,
}

impl Sockets {
    /// Makes an empty folder for the server of `folder`, at the same place every time. No server may be running there.
    ///
    /// # Errors
    /// When the folder cannot be made, also because another user has taken its place.
    pub fn make(folder: &Folder, account: &Account) -> Result<Self, PrivatePostgresError> {
        let path = path_for(&folder.root, account);
        make_empty(&path, account).map_err(PrivatePostgresError::io("make", &path))?;
        let is_below_tmp = !path.starts_with(&folder.root);
        Ok(Self { path, is_below_tmp })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if self.is_below_tmp {
            // The next start over the same data removes what remains.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns the socket of the server that listens on `port`.
pub fn socket(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

fn path_for(root: &Path, account: &Account) -> PathBuf {
    let inside = root.join("socket");
    let fits = socket(&inside, u16::MAX).as_os_str().len() <= LONGEST_PATH;
    // A path that is not UTF-8 cannot stand in a URL.
    if fits && inside.to_str().is_some() {
        return inside;
    }
    let hash = xxh3_64(root.as_os_str().as_encoded_bytes());
    Path::new(SHORT_PARENT).join(format!("private-postgres-{}-{hash:016x}", account.uid))
}

/// Removes what is at `path`, a link as such, and makes a folder there that only `account` can enter.
fn make_empty(path: &Path, account: &Account) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => folder::make_private(path, account),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

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
        check("/var/lib/service", true);
        check(&format!("/{}", "a".repeat(LONGEST_PATH - 23)), true);
        check(&format!("/{}", "a".repeat(LONGEST_PATH - 22)), false);
        assert_ne!(
            path_for(&Path::new("/").join("a".repeat(200)), &account),
            path_for(&Path::new("/").join("b".repeat(200)), &account)
        );
    }

    #[test]
    fn what_others_left_in_its_place_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let (path, target) = (parent.path().join("socket"), parent.path().join("target"));
        fs::create_dir(&target).unwrap();
        fs::write(target.join("kept"), "").unwrap();
        symlink(&target, &path).unwrap();
        for _ in 0..2 {
            make_empty(&path, &own_account()).unwrap();
            let found = fs::symlink_metadata(&path).unwrap();
            assert!(found.is_dir() && found.mode() & 0o777 == 0o700);
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
            fs::write(path.join(".s.PGSQL.5432.lock"), "").unwrap();
        }
        assert!(target.join("kept").exists());
    }
}
