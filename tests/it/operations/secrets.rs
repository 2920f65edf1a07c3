//! Secrets reach commands by a file, so that the arguments, which every user of a machine can read, need not hold them.

use std::path::Path;
use std::process::Command;

use crate::support::api_keys::create_key;
use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{Server, bare_command, output};

fn likemind(args: &[&str]) -> Command {
    bare_command(env!("CARGO_BIN_EXE_likemind"), args)
}

/// Returns the exit code and both outputs.
fn run(command: &mut Command) -> (i32, String) {
    let output = output(command);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_the_url_of_the_database_can_come_from_a_file() {
    let database = TestDatabase::create().await;
    let key = create_key(&database, &["--role", "operator"]);
    let server = Server::start(&database);
    let folder = scratch();
    let (key_file, url_file) = (folder.path().join("key"), folder.path().join("url"));
    std::fs::write(&key_file, format!("{key}\n")).unwrap();
    std::fs::write(&url_file, format!("{}\n", database.url())).unwrap();

    let call = ["call", "GetServingStatus", "--address", &server.address];
    let (code, text) = run(&mut likemind(&call));
    assert!(code == 3 && text.contains("API_KEY_MISSING"), "{text}");
    let (code, text) = run(&mut likemind(&[&call[..], &["--key-file", path(&key_file)]].concat()));
    assert!(code == 0 && text.contains("database_available"), "{text}");
    let (code, text) = run(&mut likemind(&["keys", "list", "--database-url-file", path(&url_file)]));
    assert!(code == 0 && text.contains("operator"), "{text}");

    // A secret that cannot be used is named by its file and never quoted.
    std::fs::write(&key_file, format!("{key}\n{key}\n")).unwrap();
    let (code, text) = run(&mut likemind(&[&call[..], &["--key-file", path(&key_file)]].concat()));
    assert!(
        code == 1 && text.contains("--key-file") && text.contains("must hold one line"),
        "{text}"
    );
    assert!(!text.contains(&key), "{text}");
    let (code, text) = run(&mut likemind(&["keys", "list", "--database-url-file", "/no/such/file"]));
    assert!(code == 2 && text.contains("/no/such/file cannot be read"), "{text}");
    let both = [
        "keys",
        "list",
        "--database-url-file",
        "x",
        "--database-url",
        "postgres://me:s3cret@db/x",
    ];
    let (code, text) = run(&mut likemind(&both));
    assert!(
        code == 2 && text.contains("cannot be used with") && !text.contains("s3cret"),
        "{text}"
    );
}

#[test]
fn the_help_says_why_a_secret_is_no_argument() {
    for args in [["call", "--help"], ["serve", "--help"]] {
        let (code, text) = run(&mut likemind(&args));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            code == 0 && text.contains("Every user of this machine can read the arguments"),
            "{text}"
        );
        assert!(
            text.contains("LIKEMIND__DATABASE__URL") && text.contains("--database-url-file"),
            "{text}"
        );
    }
}
