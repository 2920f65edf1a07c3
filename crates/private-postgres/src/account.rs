//! The user that PostgreSQL's programs run as: never root, and always the owner of the data.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::PrivatePostgresError;

/// The users that root runs PostgreSQL as; the first that exists is taken.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

pub fn is_root() -> bool {
    own_uid() == 0
}

impl Account {
    /// Chooses the owner of the data in `cluster`, who alone can read it. Where there is no data yet, chooses the
    /// current user, or an unprivileged one if that is root.
    ///
    /// # Errors
    /// [`PrivatePostgresError::WrongOwner`] when the data belongs to root or, for anybody but root, to somebody else;
    /// [`PrivatePostgresError::NoAccount`].
    pub fn choose(cluster: &Path) -> Result<Self, PrivatePostgresError> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let own = Self::by_uid(&passwd, own_uid(), own_gid());
        match fs::metadata(cluster) {
            Ok(data) => {
                let owner = Self::by_uid(&passwd, data.uid(), data.gid());
                if owner.uid != 0 && (owner.uid == own.uid || is_root()) {
                    return Ok(owner);
                }
                Err(PrivatePostgresError::WrongOwner {
                    folder: cluster.to_owned(),
                    owner: owner.name,
                    account: own.name,
                })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PrivatePostgresError::io("read", cluster)(error))
            }
            Err(_) if is_root() => UNPRIVILEGED
                .iter()
                .find_map(|name| find(&passwd, |account| account.name == *name))
                .ok_or(PrivatePostgresError::NoAccount),
            Err(_) => Ok(own),
        }
    }

    /// Names a user by number where `passwd` has no entry for it, as in some containers.
    fn by_uid(passwd: &str, uid: u32, gid: u32) -> Self {
        find(passwd, |account| account.uid == uid).unwrap_or_else(|| Self {
            uid,
            gid,
            name: uid.to_string(),
        })
    }

    /// Makes `command` run as this user, in a folder that everybody may enter.
    pub fn apply(&self, command: &mut Command) {
        command.current_dir("/");
        if is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Returns the outermost folder on the path to `path`, itself included, whose mode keeps this user out.
    pub fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        let is_closed =
            |folder: &&&Path| fs::metadata(folder).is_ok_and(|found| found.is_dir() && !self.may_enter(&found));
        folders.iter().find(is_closed).map(|folder| (*folder).to_owned())
    }

    fn may_enter(&self, folder: &Metadata) -> bool {
        let shift = if folder.uid() == self.uid {
            6
        } else if folder.gid() == self.gid {
            3
        } else {
            0
        };
        folder.mode() >> shift & 1 == 1
    }
}

/// Finds the first matching user in `passwd`, the text of `/etc/passwd`.
fn find(passwd: &str, is_wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?.to_owned(), fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account { uid, gid, name })
    };
    passwd.lines().filter_map(parse).find(is_wanted)
}

fn own_uid() -> u32 {
    // SAFETY: reads a number of this process.
    unsafe { libc::geteuid() }
}

fn own_gid() -> u32 {
    // SAFETY: reads a number of this process.
    unsafe { libc::getegid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\npostgres:x:105:110:PostgreSQL:/var/lib/postgresql:\n";
        let account = |uid, gid, name: &str| Account {
            uid,
            gid,
            name: name.to_owned(),
        };
        assert_eq!(
            find(passwd, |found| found.name == "postgres"),
            Some(account(105, 110, "postgres"))
        );
        assert_eq!(find(passwd, |found| found.name == "nobody"), None);
        assert_eq!(Account::by_uid(passwd, 0, 7), account(0, 0, "root"));
        assert_eq!(Account::by_uid(passwd, 3_999, 7), account(3_999, 7, "3999"));
    }

    #[test]
    fn the_outermost_closed_folder_is_named() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("closed/open/missing");
        fs::create_dir_all(inner.parent().unwrap()).unwrap();
        let stranger = Account::by_uid("", 3_999_999_999, 3_999_999_999);
        let check = |top_mode: u32, closed_mode: u32, expected: Option<&str>| {
            let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            mode(top.path(), top_mode);
            mode(&top.path().join("closed"), closed_mode);
            assert_eq!(
                stranger.first_closed(&inner),
                expected.map(|below| top.path().join(below)),
                "{closed_mode:o}"
            );
        };
        check(0o755, 0o755, None);
        check(0o711, 0o701, None);
        check(0o755, 0o770, Some("closed"));
        check(0o755, 0o744, Some("closed"));
        check(0o700, 0o700, Some(""));
        assert_eq!(Account::by_uid("", own_uid(), own_gid()).first_closed(&inner), None);
    }
}
