//! PostgreSQL's programs: where they are, and of which version.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::PrivatePostgresError;
use super::install;

/// The schema uses `pg_current_xact_id()` and its type.
pub const OLDEST_MAJOR: u32 = 13;

/// Where packages put the programs; in each, `*` stands for what tells the versions apart.
const DISTRIBUTIONS: [&str; 14] = [
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/lib/postgresql*/bin",
    "usr/lib64/postgresql-*/bin",
    "usr/libexec/postgresql*",
    "usr/local/pgsql/bin",
    "usr/local/pgsql-*/bin",
    "usr/local/bin",
    "usr/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/bin",
    "usr/local/opt/postgresql@*/bin",
    "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A folder with `initdb` and `postgres` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    pub folder: PathBuf,
    pub major: u32,
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Given, it is the only place.
    pub pg_bin: Option<PathBuf>,
    pub path: Vec<PathBuf>,
    /// Of the file system that [`DISTRIBUTIONS`] are below.
    pub root: PathBuf,
}

impl Search {
    pub fn of_this_machine() -> Self {
        Self {
            pg_bin: env::var_os("PG_BIN")
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            path: env::var_os("PATH")
                .map(|value| env::split_paths(&value).collect())
                .unwrap_or_default(),
            root: PathBuf::from("/"),
        }
    }

    /// The folders that hold the programs, best first: `PATH`, then the distributions' folders, newest first.
    pub fn folders(&self) -> Vec<PathBuf> {
        if let Some(folder) = &self.pg_bin {
            return holding_programs(folder).into_iter().collect();
        }
        let mut distributions: Vec<(Vec<u32>, PathBuf)> = DISTRIBUTIONS
            .iter()
            .flat_map(|pattern| matching(&self.root, pattern))
            .collect();
        distributions.sort_by(|(version, _), (other, _)| other.cmp(version));
        let mut folders: Vec<PathBuf> = Vec::new();
        let path = self.path.iter().filter(|folder| folder.is_absolute());
        for folder in path.chain(distributions.iter().map(|(_, folder)| folder)) {
            if let Some(folder) = holding_programs(folder).filter(|found| !folders.contains(found)) {
                folders.push(folder);
            }
        }
        folders
    }

    fn described(&self) -> String {
        match &self.pg_bin {
            Some(folder) => format!("PG_BIN = {}", folder.display()),
            None => "PATH and the usual folders".to_owned(),
        }
    }
}

impl Programs {
    /// The best that can serve the data: of the version that made it, if there is any.
    ///
    /// `cluster`: the folder of the data, of version `made_by`.
    ///
    /// # Errors
    /// [`PrivatePostgresError::NotInstalled`], [`PrivatePostgresError::TooOld`], [`PrivatePostgresError::OtherVersion`]; what `probe`
    /// answers when there is nothing better to say.
    pub fn choose(
        search: &Search,
        cluster: &Path,
        made_by: Option<u32>,
        probe: impl Fn(&Path) -> Result<u32, PrivatePostgresError>,
    ) -> Result<Self, PrivatePostgresError> {
        let mut problem = None;
        for folder in search.folders() {
            let found = probe(&folder).and_then(|major| match made_by {
                _ if major < OLDEST_MAJOR => Err(PrivatePostgresError::TooOld {
                    folder: folder.clone(),
                    major,
                    remedy: install::remedy(),
                }),
                Some(made_by) if made_by != major => Err(PrivatePostgresError::OtherVersion {
                    folder: cluster.to_owned(),
                    made_by,
                    installed: major,
                }),
                _ => Ok(major),
            });
            match found {
                Ok(major) => return Ok(Self { folder, major }),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        Err(problem.unwrap_or_else(|| PrivatePostgresError::NotInstalled {
            looked_in: search.described(),
            remedy: install::remedy(),
        }))
    }

    pub fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

/// The version of the programs in `folder`, asked as `account` from within `data`, so that it also shows whether that
/// user can reach both.
///
/// # Errors
/// [`PrivatePostgresError::Untraversable`] names the folder in the way.
pub fn probe(folder: &Path, account: &Account, data: &Path) -> Result<u32, PrivatePostgresError> {
    let program = folder.join("postgres");
    let mut command = Command::new(&program);
    account.apply(&mut command);
    command.arg("--version").current_dir(data).stdin(Stdio::null());
    let output = command.output().map_err(|error| {
        let closed = account.first_closed(&program).or_else(|| account.first_closed(data));
        match closed {
            Some(folder) if error.kind() == io::ErrorKind::PermissionDenied => PrivatePostgresError::Untraversable {
                folder,
                account: account.name.clone(),
            },
            _ => PrivatePostgresError::io("run", &program)(error),
        }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    major(&text).ok_or_else(|| PrivatePostgresError::Program {
        program,
        output: format!("{text}{}", String::from_utf8_lossy(&output.stderr))
            .trim()
            .to_owned(),
    })
}

/// From `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// `folder` without symbolic links, if both programs are in it.
fn holding_programs(folder: &Path) -> Option<PathBuf> {
    let executable = |program: &str| {
        fs::metadata(folder.join(program)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    (executable("initdb") && executable("postgres"))
        .then(|| folder.canonicalize().ok())
        .flatten()
}

/// The folders below `root` that `pattern` covers, each with the version numbers in what `*` stands for.
fn matching(root: &Path, pattern: &str) -> Vec<(Vec<u32>, PathBuf)> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![(Vec::new(), root.join(pattern))];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(root.join(parent)) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let version = version_numbers(&entry.file_name(), prefix)?;
            Some((version, entry.path().join(after.trim_start_matches('/'))))
        })
        .collect()
}

/// The numbers in what follows `prefix`: `pgsql-9.6` → `[9, 6]`; none when something else follows.
fn version_numbers(name: &OsStr, prefix: &str) -> Option<Vec<u32>> {
    let version = name.to_str()?.strip_prefix(prefix)?;
    version.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, folder: &str) -> PathBuf {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for program in ["initdb", "postgres"] {
            fs::write(folder.join(program), "").unwrap();
            fs::set_permissions(folder.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder.canonicalize().unwrap()
    }

    #[test]
    fn looks_in_path_then_in_the_newest_distribution() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| install(root.path(), name);
        let old = folder("usr/lib/postgresql/9.6/bin");
        let newest = folder("usr/lib/postgresql/17/bin");
        let middle = folder("usr/pgsql-16/bin");
        let homebrew = folder("opt/homebrew/opt/postgresql@15/bin");
        let source = folder("usr/local/pgsql/bin");
        let own = folder("home/me/bin");
        fs::create_dir_all(root.path().join("usr/lib/postgresql/18/bin")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/postgresql-common/bin")).unwrap();
        let search = Search {
            pg_bin: None,
            path: vec![
                PathBuf::from("relative"),
                root.path().join("missing"),
                own.clone(),
                middle.clone(),
            ],
            root: root.path().to_owned(),
        };
        assert_eq!(search.folders(), [own, middle, newest, homebrew, old, source]);
    }

    #[test]
    fn pg_bin_is_the_only_place() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/postgresql/17/bin");
        let chosen = install(root.path(), "chosen");
        let mut search = Search {
            pg_bin: Some(chosen.clone()),
            path: Vec::new(),
            root: root.path().to_owned(),
        };
        assert_eq!(search.folders(), [chosen]);
        search.pg_bin = Some(root.path().to_owned());
        assert_eq!(search.folders(), [] as [PathBuf; 0]);
    }

    /// Installs the programs of `majors`, in the order of `PATH`, for data made by `made_by`.
    fn choose(majors: &[u32], made_by: Option<u32>) -> Result<u32, PrivatePostgresError> {
        let root = tempfile::tempdir().unwrap();
        let path = majors.iter().map(|major| install(root.path(), &major.to_string()));
        let search = Search {
            pg_bin: None,
            path: path.collect(),
            root: root.path().to_owned(),
        };
        let probe = |folder: &Path| Ok(folder.file_name().unwrap().to_str().unwrap().parse().unwrap());
        Programs::choose(&search, Path::new("/data"), made_by, probe).map(|programs| programs.major)
    }

    #[test]
    fn prefers_the_version_that_made_the_data() {
        let check = |majors: &[u32], made_by: Option<u32>, expected: u32| {
            assert_eq!(choose(majors, made_by).unwrap(), expected, "{majors:?} {made_by:?}");
        };
        check(&[17, 15], None, 17);
        check(&[17, 15], Some(15), 15);
        check(&[9, 15], None, 15);
    }

    #[test]
    fn says_what_is_missing() {
        let check = |majors: &[u32], made_by: Option<u32>, expected: &str| {
            let message = choose(majors, made_by).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(
            &[],
            None,
            "PostgreSQL is not installed (looked in PATH and the usual folders): install it with",
        );
        check(
            &[12],
            None,
            "holds PostgreSQL 12, and 13 or newer is needed: install it with",
        );
        check(
            &[17],
            Some(15),
            "the data in /data was made by PostgreSQL 15, and the installed one is 17",
        );

        let search = Search {
            pg_bin: Some(PathBuf::from("/empty")),
            ..Search::default()
        };
        let error = Programs::choose(&search, Path::new("/data"), None, |_| Ok(17)).unwrap_err();
        assert!(error.to_string().contains("(looked in PG_BIN = /empty)"), "{error}");
    }

    #[test]
    fn reads_the_major_version() {
        let check = |text: &str, expected| assert_eq!(major(text), expected, "{text}");
        check("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("postgres (PostgreSQL) 9.6.24\n", Some(9));
        check("postgres: command not found\n", None);
    }
}
