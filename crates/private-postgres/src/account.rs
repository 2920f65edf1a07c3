//! Whom PostgreSQL's programs run as: never root, and always the owner of the data.

use std::ffi::{CStr, c_char, c_int};
use std::fs::{self, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use super::error::PrivatePostgresError;

/// Tried in this order when we are root.
const UNPRIVILEGED: [&CStr; 2] = [c"postgres", c"nobody"];

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
    /// The owner of the data if there is any, so that it can be read; else ourselves, or an unprivileged user when
    /// we are root.
    ///
    /// # Errors
    /// [`PrivatePostgresError::WrongOwner`], [`PrivatePostgresError::NoAccount`].
    pub fn choose(cluster: &Path) -> Result<Self, PrivatePostgresError> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some(Self::by_uid(metadata.uid(), metadata.gid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(PrivatePostgresError::io("read", cluster)(error)),
        };
        let own = Self::by_uid(own_uid(), own_gid());
        match owner {
            Some(owner) if owner.uid != 0 && (owner.uid == own.uid || is_root()) => Ok(owner),
            Some(owner) => Err(PrivatePostgresError::WrongOwner {
                folder: cluster.to_owned(),
                owner: owner.name,
                account: own.name,
            }),
            None if is_root() => UNPRIVILEGED
                .into_iter()
                .find_map(Self::by_name)
                .ok_or(PrivatePostgresError::NoAccount),
            None => Ok(own),
        }
    }

    /// Makes `command` run as this user, in a folder that everybody may enter.
    pub fn apply(&self, command: &mut Command) {
        command.current_dir("/");
        if is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// The outermost folder on the way to `path`, itself included, that this user may not enter by its mode.
    pub fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        let mut ways: Vec<&Path> = path.ancestors().collect();
        ways.reverse();
        let closed =
            |folder: &&&Path| fs::metadata(folder).is_ok_and(|found| found.is_dir() && !self.may_enter(&found));
        ways.iter().find(closed).map(|folder| (*folder).to_owned())
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

    /// A user without an entry in the user database, as in some containers, is known by number.
    fn by_uid(uid: u32, gid: u32) -> Self {
        entry(|found, text, length, result| {
            // SAFETY: `entry` gives pointers that are valid for the call, and the length of `text`.
            unsafe { libc::getpwuid_r(uid, found, text, length, result) }
        })
        .unwrap_or_else(|| Self {
            uid,
            gid,
            name: uid.to_string(),
        })
    }

    fn by_name(name: &CStr) -> Option<Self> {
        entry(|found, text, length, result| {
            // SAFETY: `entry` gives pointers that are valid for the call, and the length of `text`.
            unsafe { libc::getpwnam_r(name.as_ptr(), found, text, length, result) }
        })
    }
}

/// What the user database knows; `lookup` is one of `getpw…_r`.
fn entry(lookup: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int) -> Option<Account> {
    let mut found = MaybeUninit::<libc::passwd>::uninit();
    let mut text = vec![0; 16 * 1024];
    let mut result = ptr::null_mut();
    let code = lookup(found.as_mut_ptr(), text.as_mut_ptr(), text.len(), &raw mut result);
    if code != 0 || result.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so `result` points to `found`, filled, and its name to a C string within `text`.
    let (found, name) = unsafe { (&*result, CStr::from_ptr((*result).pw_name)) };
    Some(Account {
        uid: found.pw_uid,
        gid: found.pw_gid,
        name: name.to_string_lossy().into_owned(),
    })
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
    fn finds_users_by_name_and_number() {
        assert_eq!(
            Account::by_name(c"root"),
            Some(Account {
                uid: 0,
                gid: 0,
                name: "root".to_owned()
            })
        );
        assert_eq!(Account::by_uid(0, 7).name, "root");
        assert_eq!(Account::by_name(c"no such user"), None);
        let unknown = Account {
            uid: 3_999_999_999,
            gid: 7,
            name: "3999999999".to_owned(),
        };
        assert_eq!(Account::by_uid(3_999_999_999, 7), unknown);
    }

    #[test]
    fn names_the_outermost_folder_that_is_closed() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("closed/open/missing");
        fs::create_dir_all(inner.parent().unwrap()).unwrap();
        let stranger = Account {
            uid: 3_999_999_999,
            gid: 3_999_999_999,
            name: String::new(),
        };
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
        let owner = Account::by_uid(own_uid(), own_gid());
        assert_eq!(owner.first_closed(&inner), None);
    }
}
