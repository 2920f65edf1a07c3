//! The ids of users in the log.

use likemind::grpc::proto::v1::ExportUserDataRequest;

use crate::support::caller::Caller;
use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{Server, run};

/// Exports two users, the first of them twice, and returns what the log says of it.
async fn log_of_exports(database: &TestDatabase, settings: &[(&str, &str)]) -> Vec<String> {
    let mut server = Server::with(database, settings);
    let caller = Caller::of(&server).await;
    for user in ["ada-lovelace", "ada-lovelace", "bob"] {
        caller.rate(user, "x", 3.0).await;
        let request = ExportUserDataRequest {
            user_id: user.to_owned(),
            reason: String::new(),
        };
        let mut stream = caller
            .privacy
            .clone()
            .export_user_data(request)
            .await
            .unwrap()
            .into_inner();
        while stream.message().await.unwrap().is_some() {}
    }
    server.program.wait_for_log("exported");
    let (_, log) = server.drain().await;
    let lines: Vec<String> = log
        .lines()
        .filter(|line| line.contains("exported"))
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    // Whatever else is logged names nobody either.
    if !settings.is_empty() {
        assert!(!log.contains("ada-lovelace"), "{log}");
    }
    lines
}

/// Returns the id of the user in each line.
fn ids(lines: &[String]) -> Vec<String> {
    let id = |line: &String| {
        let field = line.split("user_id").nth(1)?.trim_start_matches(['"', ':', '=']);
        Some(field.split([' ', '"', ',']).next()?.to_owned())
    };
    lines.iter().filter_map(id).collect()
}

#[tokio::test]
async fn ids_are_shown_hashed_or_left_out_in_text_and_json() {
    let database = TestDatabase::create().await;
    assert_eq!(
        ids(&log_of_exports(&database, &[]).await),
        ["ada-lovelace", "ada-lovelace", "bob"]
    );
    let folder = scratch();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "a key of sixteen bytes or more").unwrap();
    let key = ("telemetry.user_ids_key_file", key_file.to_str().unwrap());
    let mut hashes = Vec::new();
    for format in ["text", "json"] {
        let format = ("telemetry.log_format", format);
        let level = ("telemetry.log_filter", "debug");
        let hashed = ids(&log_of_exports(&database, &[format, level, key, ("telemetry.user_ids", "hash")]).await);
        assert_eq!((hashed.len(), hashed[0].len()), (3, 16), "{hashed:?}");
        assert!(hashed[0] == hashed[1] && hashed[1] != hashed[2], "{hashed:?}");
        hashes.push(hashed);
        let lines = log_of_exports(&database, &[format, level, ("telemetry.user_ids", "omit")]).await;
        assert_eq!(ids(&lines), Vec::<String>::new(), "{lines:?}");
    }
    assert_eq!(hashes[0], hashes[1], "the same key, in another process");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_refused() {
    let database = TestDatabase::create().await;
    let check = |file: &str, expected: &str| {
        let setting = format!("--set-config=telemetry.user_ids_key_file={file}");
        let (code, _, errors) = run(&database, &["migrate", &setting]);
        assert_eq!(code, 2, "{errors}");
        assert!(
            errors.contains("telemetry.user_ids_key_file") && errors.contains(expected),
            "{errors}"
        );
    };
    check("/no/such/file", "No such file");
    let folder = scratch();
    let short = folder.path().join("key");
    std::fs::write(&short, "short").unwrap();
    check(short.to_str().unwrap(), "must hold 16 bytes or more");
    let (code, _, errors) = run(&database, &["migrate", "--set-config=telemetry.user_ids=hidden"]);
    assert!(code == 2 && errors.contains("user_ids"), "{errors}");
}
