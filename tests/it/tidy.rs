//! The floors: who may import whom, and who may use which library. See ARCHITECTURE.md.

use std::path::{Path, PathBuf};

/// From the top down: a module may use those of lower rows only. Modules of one row do not know each other.
const ROWS: [&[&str]; 10] = [
    &["main", "cli", "config", "telemetry"],
    &["grpc"],
    &["app"],
    &["live"],
    &["store"],
    &["coupon", "demand", "evaluation"],
    &["recommend", "training"],
    &["model"],
    &["similarity"],
    &["domain"],
];

/// The top row is one floor: the commands load the configuration and set up the logs.
const ONE_FLOOR: &[&str] = ROWS[0];

/// No async, no I/O, no clock, no global state.
const PURE: [&str; 8] = [
    "coupon",
    "demand",
    "evaluation",
    "recommend",
    "training",
    "model",
    "similarity",
    "domain",
];

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

/// The top-level module that a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn row_of(module: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("module {module} stands in no row: add it to ARCHITECTURE.md and here"))
}

/// Lines of code with their numbers: no comments, no doc comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// The first name after every `prefix` in `line`.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let name = |rest: &'a str| {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..end]
    };
    line.match_indices(prefix)
        .map(|(at, _)| name(&line[at + prefix.len()..]))
        .collect()
}

/// Whether `line` has `word`, not as a part of another word and not as a lifetime.
fn has_word(line: &str, word: &str) -> bool {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| is_in_word(c) || c == '\'') && !line[at + word.len()..].starts_with(is_in_word)
    })
}

/// Whether `line` begins a path with `library`, or imports it by its bare name.
fn uses(line: &str, library: &str) -> bool {
    let is_in_path = |c: char| c.is_alphanumeric() || "_>".contains(c);
    let is_import = ["use ", "pub use ", "pub(crate) use ", "extern crate "]
        .iter()
        .any(|import| line.trim_start().starts_with(import));
    line.match_indices(library).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + library.len()..]);
        let is_start = !before.strip_suffix("::").unwrap_or(before).ends_with(is_in_path);
        is_start && (after.starts_with("::") || is_import && !after.starts_with(is_in_path))
    })
}

/// The longest chain of `super::` in `line`.
fn supers(line: &str) -> usize {
    (1..)
        .take_while(|count| line.contains(&"super::".repeat(*count)))
        .count()
}

/// What this crate is built with, by the names in code.
fn dependencies() -> Vec<String> {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once('='));
    names.map(|(name, _)| name.trim().replace('-', "_")).collect()
}

const GRPC: [&str; 9] = [
    "tokio_rustls",
    "tonic",
    "tonic_health",
    "tonic_prost",
    "tonic_reflection",
    "tonic_types",
    "prost",
    "prost_reflect",
    "prost_types",
];

/// What a pure module does not do, and how it would be done.
const IMPURE: [(&str, &[&str]); 3] = [
    (
        "no I/O",
        &[
            "tokio",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::os",
            "std::process",
            "std::thread",
            "reqwest",
        ],
    ),
    ("no random source of its own", &["rand", "fastrand", "getrandom"]),
    ("no logging", &["tracing", "log"]),
];

/// What breaks the rules in a file of `module` with this text. `file` begins with `src/`.
fn problems(module: &str, file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let dependencies = dependencies();
    let depth = Path::new(file).components().count() - 1;
    let is_test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    let mut is_inline_module = false;
    for (number, line) in code_lines(text) {
        is_inline_module = match line {
            "}" => false,
            _ => is_inline_module || (line.starts_with("mod ") && line.ends_with('{')),
        };
        let is_test = is_test_file || is_inline_module;
        let mut complain = |what: String| problems.push(format!("{file}:{number}: {what}: {}", line.trim()));
        for other in names_after(line, "crate::") {
            if other == module || other.is_empty() {
                continue;
            }
            let same_floor = ONE_FLOOR.contains(&module) && ONE_FLOOR.contains(&other);
            if row_of(other) <= row_of(module) && !same_floor {
                complain(format!("{module} must not use {other}"));
            }
        }
        if line.contains("crate::{") || line.contains("crate::*") {
            complain("name one module a line, so that imports can be checked".to_owned());
        }
        if supers(line) >= depth + usize::from(is_inline_module) {
            complain("say crate:: for the top of the crate, so that imports can be checked".to_owned());
        }
        if uses(line, "sqlx") && module != "store" {
            complain("sqlx outside of store".to_owned());
        }
        let may_use_grpc = module == "grpc" || file == "src/cli/call.rs" || file.starts_with("src/cli/call/");
        for library in GRPC {
            if uses(line, library) && !may_use_grpc {
                complain(format!("{library} outside of grpc and cli/call"));
            }
        }
        if uses(line, "anyhow") && !["cli", "main"].contains(&module) {
            complain("anyhow outside of cli and main".to_owned());
        }
        if module == "similarity" {
            for library in &dependencies {
                let may_use = ["ndarray", "rayon", "thiserror"].contains(&library.as_str());
                if uses(line, library) && !may_use {
                    complain(format!(
                        "similarity uses std, ndarray, rayon and thiserror, not {library}"
                    ));
                }
            }
        }
        if PURE.contains(&module) {
            if has_word(line, "async") || line.contains(".await") {
                complain(format!("{module} is pure: no async"));
            }
            for (rule, libraries) in IMPURE {
                if libraries.iter().any(|library| uses(line, library)) {
                    complain(format!("{module} is pure: {rule}"));
                }
            }
            let clocks = ["Utc::now", "Instant::now", "SystemTime::now", "Local"];
            if clocks.iter().any(|clock| has_word(line, clock)) {
                complain(format!("{module} is pure: no clock"));
            }
            if line.contains("std::{") || line.contains("std::*") {
                complain("name one module of std a line, so that imports can be checked".to_owned());
            }
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
            if prints.iter().any(|print| has_word(line, print)) && !is_test {
                complain(format!("{module} is pure: no output"));
            }
            let global = ["static", "LazyLock", "OnceLock", "lazy_static", "thread_local"];
            if global.iter().any(|word| has_word(line, word)) && !is_test {
                complain(format!("{module} is pure: no global state"));
            }
        }
    }
    problems
}

#[test]
fn the_floors_hold() {
    let mut found = Vec::new();
    for path in sources() {
        let (module, text) = (module_of(&path), std::fs::read_to_string(&path).unwrap());
        let file = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        if module != "lib" {
            found.extend(problems(&module, &file.display().to_string(), &text));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_breach_is_seen() {
    let check_in = |module: &str, file: &str, text: &str, breaches: usize| {
        let found = problems(module, file, text);
        assert_eq!(found.len(), breaches, "{file}: {text}: {found:?}");
    };
    let check = |module: &str, line: &str, breaches: usize| {
        check_in(module, &format!("src/{module}.rs"), line, breaches);
    };
    check("store", "use crate::model::codec;", 0);
    check("store", "use crate::live::Live;", 1);
    check("training", "use crate::recommend::rank;", 1);
    check("training", "// crate::recommend is for others", 0);
    check("training", "use crate::{recommend, model};", 1);
    check("training", "use crate::*;", 1);
    check("cli", "use crate::config::Config;", 0);
    check("config", "use crate::grpc::options::ServerOptions;", 0);
    check("app", "use crate::config::Config;", 1);

    check("store", "use super::live::Live;", 1);
    check_in("store", "src/store/pool.rs", "use super::ids;", 0);
    check_in("store", "src/store/pool.rs", "use super::super::live::Live;", 1);
    check_in(
        "store",
        "src/store/pool.rs",
        "mod tests {\n    use super::super::ids;\n}",
        0,
    );
    check_in(
        "store",
        "src/store/pool.rs",
        "mod tests {\n    use super::super::super::live;\n}",
        1,
    );
    check_in(
        "store",
        "src/store/pool.rs",
        "mod tests {\n}\nuse super::super::live::Live;",
        1,
    );

    check("app", "let rows = sqlx::query(\"SELECT 1\");", 1);
    check("app", "let rows = ::sqlx::query(\"SELECT 1\");", 1);
    check("app", "use sqlx as db;", 1);
    check("app", "use {serde, sqlx};", 1);
    check("app", "use self::sqlx::query;", 0);
    check("store", "use sqlx as db;", 0);
    for library in GRPC {
        check("live", &format!("fn f() -> {library}::Type {{"), 1);
        check("live", &format!("use ::{library}::Type;"), 1);
        check("grpc", &format!("fn f() -> {library}::Type {{"), 0);
        check_in("cli", "src/cli/call.rs", &format!("use {library}::Type;"), 0);
        check_in("cli", "src/cli/call/client.rs", &format!("use {library}::Type;"), 0);
        check_in("cli", "src/cli/caller.rs", &format!("use {library}::Type;"), 1);
        check_in("cli", "src/cli/call_later.rs", &format!("use {library}::Type;"), 1);
    }
    check("grpc", "error = ?anyhow::Error::new(error)", 1);
    check("app", "use anyhow::Context;", 1);
    check("cli", "use anyhow::Context;", 0);

    for line in [
        "async fn f() {}",
        "async unsafe fn f() {}",
        "let f = async {",
        "let f = async || {",
        "async move {",
    ] {
        check("model", line, 1);
        check("live", line, 0);
    }
    check("model", "let asynchronous = true;", 0);
    check("model", "sleep().await;", 1);
    for line in [
        "use std::fs::File;",
        "let x = std::fs::read(path);",
        "use std::{fs, net};",
        "let x = std::env::var(\"X\");",
        "use std::io::Read;",
        "use std::io;",
        "std::thread::sleep(duration);",
        "use ::std::thread;",
        "let at = Utc::now();",
        "let at = chrono::Utc::now();",
        "let at = Local::now();",
        "use chrono::Local;",
        "let at = std::time::Instant::now();",
        "let x = rand::random::<f64>();",
        "use rand::Rng;",
        "println!(\"{x}\");",
        "dbg!(x);",
        "tracing::info!(x);",
        "use tracing::info;",
        "static SEEN: AtomicU64 = AtomicU64::new(0);",
        "pub static mut SEEN: u64 = 0;",
        "let x = LazyLock::new(f);",
        "thread_local! {",
    ] {
        check("domain", line, 1);
        check("live", line, 0);
    }
    check("domain", "const NAME: &'static str = \"x\";", 0);
    check_in(
        "model",
        "src/model/codec/tests.rs",
        "static SEEN: Cell<u64> = const { Cell::new(0) };",
        0,
    );
    check("similarity", "use ndarray::Array2;", 0);
    check("similarity", "use rayon::prelude::*;", 0);
    check("similarity", "#[derive(thiserror::Error)]", 0);
    check("similarity", "use std::ops::Range;", 0);
    check("similarity", "#[derive(serde::Serialize)]", 1);
    check("similarity", "use xxhash_rust::xxh3::xxh3_64;", 1);
}

#[test]
fn no_module_hides_in_mod_rs() {
    let hidden: Vec<PathBuf> = sources().into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
