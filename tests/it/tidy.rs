//! The rules of the layout that the compiler cannot see. See ARCHITECTURE.md.

use std::path::{Path, PathBuf};

/// The modules of the service, from the top down. A module may use those of lower rows only, and none of its own row.
const ROWS: [&[&str]; 6] = [
    &["main", "cli", "config", "telemetry"],
    &["grpc", "web"],
    &["admission"],
    &["app"],
    &["live"],
    &["store"],
];

/// The modules of the top row may use each other, because the commands load the configuration and set up the logs.
const TOP_ROW: &[&str] = ROWS[0];

/// The crates without async, I/O, clock or global state.
const PURE: [&str; 5] = ["coupons", "demand", "domain", "recommender", "similarity"];

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    walk(&root.join("crates"), &mut found);
    assert!(found.len() > 100, "only {} files found", found.len());
    found
}

/// Returns the crate below `crates/`, or the top-level module of the service, that contains `file`, a path relative to the
/// root.
fn part_of(file: &Path) -> String {
    let mut components = file.components().map(|part| part.as_os_str().to_str().unwrap());
    let (first, second) = (components.next().unwrap(), components.next().unwrap());
    assert!(["src", "crates"].contains(&first), "{}", file.display());
    second.trim_end_matches(".rs").to_owned()
}

fn row_of(module: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("module {module} stands in no row: add it to ARCHITECTURE.md and here"))
}

/// Returns the lines of code with their numbers, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// Returns the name after every `prefix` in `line`.
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

/// Whether `line` contains `word` as a whole word that is not a lifetime.
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

/// Returns the length of the longest chain of `super::` in `line`.
fn supers(line: &str) -> usize {
    (1..)
        .take_while(|count| line.contains(&"super::".repeat(*count)))
        .count()
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

/// The rules of pure crates, with the libraries that a breach would use.
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

/// Returns the breaches of the rules in a file with this text. `part`: the crate or the module that contains it.
fn problems(part: &str, file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let is_service = file.starts_with("src/");
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
        if is_service {
            for other in names_after(line, "crate::") {
                if other == part || other.is_empty() {
                    continue;
                }
                let both_on_top = TOP_ROW.contains(&part) && TOP_ROW.contains(&other);
                if row_of(other) <= row_of(part) && !both_on_top {
                    complain(format!("{part} must not use {other}"));
                }
            }
            if line.contains("crate::{") || line.contains("crate::*") {
                complain("name one module a line, so that imports can be checked".to_owned());
            }
            if supers(line) >= depth + usize::from(is_inline_module) {
                complain("say crate:: for the top of the crate, so that imports can be checked".to_owned());
            }
        }
        if uses(line, "sqlx") && part != "store" && !is_test {
            complain("sqlx outside of store".to_owned());
        }
        let may_use_grpc = part == "grpc" || file == "src/cli/call.rs" || file.starts_with("src/cli/call/");
        for library in GRPC {
            if uses(line, library) && !may_use_grpc {
                complain(format!("{library} outside of grpc and cli/call"));
            }
        }
        if uses(line, "anyhow") && !["cli", "main"].contains(&part) {
            complain("anyhow outside of cli and main".to_owned());
        }
        if PURE.contains(&part) {
            if has_word(line, "async") || line.contains(".await") {
                complain(format!("{part} is pure: no async"));
            }
            for (rule, libraries) in IMPURE {
                if libraries.iter().any(|library| uses(line, library)) {
                    complain(format!("{part} is pure: {rule}"));
                }
            }
            let clocks = ["Utc::now", "Instant::now", "SystemTime::now", "Local"];
            if clocks.iter().any(|clock| has_word(line, clock)) {
                complain(format!("{part} is pure: no clock"));
            }
            if line.contains("std::{") || line.contains("std::*") {
                complain("name one module of std a line, so that imports can be checked".to_owned());
            }
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
            if prints.iter().any(|print| has_word(line, print)) && !is_test {
                complain(format!("{part} is pure: no output"));
            }
            let global = ["static", "LazyLock", "OnceLock", "lazy_static", "thread_local"];
            if global.iter().any(|word| has_word(line, word)) && !is_test {
                complain(format!("{part} is pure: no global state"));
            }
        }
    }
    problems
}

#[test]
fn no_source_file_breaches_the_rules_of_the_layout() {
    let mut found = Vec::new();
    for path in sources() {
        let file = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (part, text) = (part_of(file), std::fs::read_to_string(&path).unwrap());
        if part != "lib" {
            found.extend(problems(&part, &file.display().to_string(), &text));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Asserts the number of breaches in a file of `part` with this text.
#[track_caller]
fn check_file(part: &str, file: &str, text: &str, breaches: usize) {
    let found = problems(part, file, text);
    assert_eq!(found.len(), breaches, "{file}: {text}: {found:?}");
}

/// [`check_file`] for a line of a module of the service.
#[track_caller]
fn check(module: &str, line: &str, breaches: usize) {
    check_file(module, &format!("src/{module}.rs"), line, breaches);
}

/// [`check_file`] for a line of a crate.
#[track_caller]
fn check_crate(name: &str, line: &str, breaches: usize) {
    check_file(name, &format!("crates/{name}/src/lib.rs"), line, breaches);
}

#[test]
fn an_import_of_the_same_or_a_higher_row_is_a_breach() {
    check("live", "use crate::store::postgres::pool::Pool;", 0);
    check("store", "use crate::live::Live;", 1);
    check("app", "use crate::grpc::status;", 1);
    check("app", "// crate::grpc is for others", 0);
    check("app", "use crate::{store, live};", 1);
    check("app", "use crate::*;", 1);
    check("admission", "use crate::app::targets;", 0);
    check("admission", "use crate::grpc::status;", 1);
    check_crate("recommender", "use crate::{ranking, snapshot};", 0);
    check("cli", "use crate::config::Config;", 0);
    check("config", "use crate::grpc::options::ServerOptions;", 0);
    check("app", "use crate::config::Config;", 1);
}

#[test]
fn super_paths_to_the_top_of_the_crate_are_a_breach() {
    check("store", "use super::live::Live;", 1);
    check_file("store", "src/store/pool.rs", "use super::ids;", 0);
    check_file("store", "src/store/pool.rs", "use super::super::live::Live;", 1);
    check_file(
        "store",
        "src/store/pool.rs",
        "mod tests {\n    use super::super::ids;\n}",
        0,
    );
    check_file(
        "store",
        "src/store/pool.rs",
        "mod tests {\n    use super::super::super::live;\n}",
        1,
    );
    check_file(
        "store",
        "src/store/pool.rs",
        "mod tests {\n}\nuse super::super::live::Live;",
        1,
    );
}

#[test]
fn a_library_outside_its_module_is_a_breach() {
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
        check_file("cli", "src/cli/call.rs", &format!("use {library}::Type;"), 0);
        check_file("cli", "src/cli/call/client.rs", &format!("use {library}::Type;"), 0);
        check_file("cli", "src/cli/caller.rs", &format!("use {library}::Type;"), 1);
        check_file("cli", "src/cli/call_later.rs", &format!("use {library}::Type;"), 1);
    }
    check("grpc", "error = ?anyhow::Error::new(error)", 1);
    check("app", "use anyhow::Context;", 1);
    check("cli", "use anyhow::Context;", 0);
}

#[test]
fn async_in_a_pure_crate_is_a_breach() {
    for line in [
        "async fn f() {}",
        "async unsafe fn f() {}",
        "let f = async {",
        "let f = async || {",
        "async move {",
    ] {
        check_crate("recommender", line, 1);
        check("live", line, 0);
    }
    check_crate("recommender", "let asynchronous = true;", 0);
    check_crate("recommender", "sleep().await;", 1);
}

#[test]
fn io_clock_randomness_output_and_global_state_in_a_pure_crate_are_breaches() {
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
        check_crate("domain", line, 1);
        check("live", line, 0);
    }
    check_crate("domain", "const NAME: &'static str = \"x\";", 0);
    check_file(
        "recommender",
        "crates/recommender/src/snapshot/codec/tests.rs",
        "static SEEN: Cell<u64> = const { Cell::new(0) };",
        0,
    );
}

#[test]
fn no_module_is_in_a_file_mod_rs() {
    let hidden: Vec<PathBuf> = sources().into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// Returns the arguments of each macro of `tracing` in `text`.
fn log_calls(text: &str) -> Vec<&str> {
    let calls = text.match_indices("tracing::").filter_map(|(at, _)| {
        let call = &text[at..];
        let open = call.find('(')?;
        call[..open].ends_with('!').then_some(&call[open + 1..])
    });
    let arguments = calls.map(|call| {
        let mut depth = 1;
        let end = call.char_indices().find(|(_, letter)| {
            depth += match letter {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        &call[..end.map_or(call.len(), |(at, _)| at)]
    });
    arguments.collect()
}

/// Whether the arguments of a log line name a user otherwise than in the fields that `telemetry.user_ids` knows.
fn names_a_user_elsewhere(arguments: &str) -> bool {
    let is_user = |name: &str| {
        name.trim_start_matches(['%', '?', '&', '*']).starts_with("user.") || {
            matches!(name.trim_start_matches(['%', '?']), "user" | "user_key" | "external_id")
        }
    };
    let fields = arguments
        .split(',')
        .map(|field| field.split('=').next().unwrap_or_default().trim());
    fields.into_iter().any(is_user) || arguments.contains("{user") || arguments.contains("{external_id")
}

#[test]
fn log_lines_name_users_in_one_field_alone() {
    // A user of the private PostgreSQL is an account of the machine.
    let shoppers = sources()
        .into_iter()
        .filter(|file| !file.to_string_lossy().contains("/private-postgres/"));
    for file in shoppers {
        let text = std::fs::read_to_string(&file).unwrap();
        for arguments in log_calls(&text) {
            let names_one = names_a_user_elsewhere(arguments);
            assert!(
                !names_one,
                "{}: only user_id may name a user: {arguments}",
                file.display()
            );
        }
    }
    let check = |line: &str, expected: bool| {
        let found = log_calls(line).into_iter().any(names_a_user_elsewhere);
        assert_eq!(found, expected, "{line}");
    };
    check(r#"tracing::info!(user_id = %user, "done")"#, false);
    check(r#"tracing::info!(users = n(a), "trained")"#, false);
    check(r#"tracing::info!(%user, "done")"#, true);
    check(r#"tracing::info!(user = %id, "done")"#, true);
    check(r#"tracing::info!("user {user} is erased")"#, true);
    check(r#"tracing::warn!(error = f(a), "{user_id} is lost")"#, true);
}
