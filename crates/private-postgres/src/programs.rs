//! Finds PostgreSQL's programs and their version.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::PrivatePostgresError;
use super::install;

/// The folders where packages put the programs; in each, `*` stands for what tells the versions apart.
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

/// The folders to look in.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// If this is given, no other folder is looked in.
    pub pg_bin: Option<PathBuf>,
    pub path: Vec<PathBuf>,
    /// The root of the file system that holds [`DISTRIBUTIONS`].
    pub root: PathBuf,
}

/// The versions that will do.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub oldest_major: u32,
    /// The folder of the data.
    pub cluster: &'a Path,
    /// The version that made the data, if there is any: only that one can serve it.
    pub made_by: Option<u32>,
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

    /// Returns the folders that hold the programs, those of `PATH` first.
    fn folders(&self) -> Vec<PathBuf> {
        let candidates = match &self.pg_bin {
            Some(folder) => vec![folder.clone()],
            None => {
                let path = self.path.iter().filter(|folder| folder.is_absolute()).cloned();
                let distributions = DISTRIBUTIONS.iter().flat_map(|pattern| matching(&self.root, pattern));
                path.chain(distributions).collect()
            }
        };
        let mut folders = Vec::new();
        for folder in candidates.iter().filter_map(|folder| holding_programs(folder)) {
            if !folders.contains(&folder) {
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
    /// Chooses the newest programs that will do, by the version that `probe` finds in each folder.
    ///
    /// # Errors
    /// [`PrivatePostgresError::NotInstalled`], [`PrivatePostgresError::TooOld`], [`PrivatePostgresError::OtherVersion`],
    /// or the error of `probe`: the first one, if no programs will do.
    pub fn choose(
        search: &Search,
        wanted: Wanted<'_>,
        probe: impl Fn(&Path) -> Result<u32, PrivatePostgresError>,
    ) -> Result<Self, PrivatePostgresError> {
        let mut best: Option<Self> = None;
        let mut problem = None;
        for folder in search.folders() {
            match probe(&folder).and_then(|major| wanted.check(&folder, major)) {
                Ok(major) if best.as_ref().is_none_or(|best| best.major < major) => best = Some(Self { folder, major }),
                Ok(_) => {}
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        best.ok_or_else(|| {
            problem.unwrap_or_else(|| PrivatePostgresError::NotInstalled {
                looked_in: search.described(),
                remedy: install::remedy(),
            })
        })
    }

    pub fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

impl Wanted<'_> {
    /// Returns `major`, the version of the programs in `folder`, if it will do.
    fn check(&self, folder: &Path, major: u32) -> Result<u32, PrivatePostgresError> {
        match self.made_by {
            _ if major < self.oldest_major => Err(PrivatePostgresError::TooOld {
                folder: folder.to_owned(),
                major,
                oldest: self.oldest_major,
                remedy: install::remedy(),
            }),
            Some(made_by) if made_by != major => Err(PrivatePostgresError::OtherVersion {
                folder: self.cluster.to_owned(),
                made_by,
                installed: major,
            }),
            _ => Ok(major),
        }
    }
}

/// Asks the programs in `folder` for their version, as `account` and from within `data`: this shows too whether that
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

/// Reads the major version in `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Returns `folder` without symbolic links, if both programs are in it.
fn holding_programs(folder: &Path) -> Option<PathBuf> {
    let executable = |program: &str| {
        fs::metadata(folder.join(program)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    (executable("initdb") && executable("postgres"))
        .then(|| folder.canonicalize().ok())
        .flatten()
}

/// Returns the folders below `root` that `pattern` may mean, whether they exist or not.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![root.join(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(root.join(parent)) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect()
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
    fn programs_are_found_in_path_and_in_the_folders_of_packages() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| install(root.path(), name);
        let own = folder("home/me/bin");
        let mut packages = [
            folder("usr/lib/postgresql/9.6/bin"),
            folder("usr/lib/postgresql/17/bin"),
            folder("usr/pgsql-16/bin"),
            folder("opt/homebrew/opt/postgresql@15/bin"),
            folder("usr/local/pgsql/bin"),
        ];
        fs::create_dir_all(root.path().join("usr/lib/postgresql/18/bin")).unwrap();
        let search = Search {
            pg_bin: None,
            path: vec![
                PathBuf::from("relative"),
                root.path().join("missing"),
                own.clone(),
                own.clone(),
            ],
            root: root.path().to_owned(),
        };
        let mut found = search.folders();
        assert_eq!(found.remove(0), own);
        found.sort();
        packages.sort();
        assert_eq!(found, packages);
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

    /// Chooses among installed programs of `majors`, in the order of `PATH`, for data made by `made_by`.
    fn choose(majors: &[u32], made_by: Option<u32>) -> Result<u32, PrivatePostgresError> {
        let root = tempfile::tempdir().unwrap();
        let path = majors.iter().map(|major| install(root.path(), &major.to_string()));
        let search = Search {
            pg_bin: None,
            path: path.collect(),
            root: root.path().to_owned(),
        };
        let probe = |folder: &Path| Ok(folder.file_name().unwrap().to_str().unwrap().parse().unwrap());
        Programs::choose(&search, wanted(made_by), probe).map(|programs| programs.major)
    }

    fn wanted(made_by: Option<u32>) -> Wanted<'static> {
        Wanted {
            oldest_major: 13,
            cluster: Path::new("/data"),
            made_by,
        }
    }

    #[test]
    fn the_version_that_made_the_data_is_taken_else_the_newest() {
        let check = |majors: &[u32], made_by: Option<u32>, expected: u32| {
            assert_eq!(choose(majors, made_by).unwrap(), expected, "{majors:?} {made_by:?}");
        };
        check(&[15, 17, 16], None, 17);
        check(&[17, 15], Some(15), 15);
        check(&[9, 15], None, 15);
    }

    #[test]
    fn the_error_says_what_is_missing() {
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
        let error = Programs::choose(&search, wanted(None), |_| Ok(17)).unwrap_err();
        assert!(error.to_string().contains("(looked in PG_BIN = /empty)"), "{error}");
    }

    #[test]
    fn the_major_version_is_read() {
        let check = |text: &str, expected| assert_eq!(major(text), expected, "{text}");
        check("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("postgres (PostgreSQL) 9.6.24\n", Some(9));
        check("postgres: command not found\n", None);
    }
}
