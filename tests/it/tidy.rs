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

/// No async, no I/O, no clock.
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

/// What breaks the rules in a file of `module` with this text.
fn problems(module: &str, file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in code_lines(text) {
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
        if line.contains("crate::{") {
            complain("name one module a line, so that imports can be checked".to_owned());
        }
        let uses = |library: &str| {
            let at_path_start = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
            line.match_indices(&format!("{library}::"))
                .any(|(at, _)| at_path_start(at))
        };
        if uses("sqlx") && module != "store" {
            complain("sqlx outside of store".to_owned());
        }
        let may_use_tonic = module == "grpc" || file.contains("cli/call");
        for library in [
            "tonic",
            "prost",
            "prost_types",
            "prost_reflect",
            "tonic_health",
            "tonic_types",
            "tokio_rustls",
        ] {
            if uses(library) && !may_use_tonic {
                complain(format!("{library} outside of grpc and cli/call"));
            }
        }
        if PURE.contains(&module) {
            let is_async = names_after(line, "async ")
                .iter()
                .any(|next| ["fn", "move"].contains(next));
            if is_async || line.contains(".await") {
                complain(format!("{module} is pure: no async"));
            }
            for library in ["tokio", "std::fs", "std::net", "std::process", "reqwest"] {
                if uses(library) {
                    complain(format!("{module} is pure: no I/O"));
                }
            }
            if line.contains("Utc::now") || line.contains("Instant::now") || line.contains("SystemTime::now") {
                complain(format!("{module} is pure: no clock"));
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
        if module != "lib" {
            found.extend(problems(&module, &path.display().to_string(), &text));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_breach_is_seen() {
    let check = |module: &str, line: &str, breaches: usize| {
        let found = problems(module, &format!("src/{module}.rs"), line);
        assert_eq!(found.len(), breaches, "{module}: {line}: {found:?}");
    };
    check("store", "use crate::model::codec;", 0);
    check("store", "use crate::live::Live;", 1);
    check("training", "use crate::recommend::rank;", 1);
    check("training", "// crate::recommend is for others", 0);
    check("training", "use crate::{recommend, model};", 1);
    check("cli", "use crate::config::Config;", 0);
    check("config", "use crate::grpc::options::ServerOptions;", 0);
    check("app", "use crate::config::Config;", 1);
    check("app", "let rows = sqlx::query(\"SELECT 1\");", 1);
    check("live", "fn f() -> tonic::Status {", 1);
    check("grpc", "fn f() -> tonic::Status {", 0);
    check("model", "async fn f() {}", 1);
    check("model", "let at = std::time::Instant::now();", 1);
    check("domain", "use std::fs::File;", 1);
    check("domain", "let x = std::fs::read(path);", 1);
}

#[test]
fn no_module_hides_in_mod_rs() {
    let hidden: Vec<PathBuf> = sources().into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
