//! The search for erased ids, and how erasures end.

use std::collections::HashSet;
use std::time::Duration;

use domain::id::UserId;
use likemind::app::redaction::find;
use likemind::grpc::proto::v1::{ConsentDecision, Purpose, SetConsentRequest};
use likemind::store::postgres::leases;
use likemind::store::postgres::pool::Pool;
use likemind::store::privacy::erasure_key::ErasureKey;
use likemind::store::privacy::erasures::{self, Finished, Request, Search, VERIFICATION_LEASE};
use sqlx::PgConnection;

use crate::support::caller::Caller;
use crate::support::coupons::Offer;
use crate::support::erasures::{KEY, KeyFile, eraser};
use crate::support::postgres::{TestDatabase, execute, number, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::shop::{self, item, user};

/// Returns the finding of each erasure, and whether it is verified.
async fn findings(connection: &mut PgConnection) -> Vec<(bool, String)> {
    sqlx::query_as("SELECT verified_at IS NOT NULL, finding FROM erasures ORDER BY id")
        .fetch_all(connection)
        .await
        .unwrap()
}

/// Names everything that can have a name after a user.
async fn name_everything(database: &TestDatabase, server: &Server) {
    let mut connection = database.connect().await;
    Offer::of("WELCOME10").create(&mut connection).await;
    let names = "INSERT INTO api_keys (id, secret_hash, role, note) VALUES ('till', sha256('k'), 'admin', 'the till');
                 INSERT INTO audit (actor, action, subject, note, row_count) VALUES ('operator', 'NOTED', 'stock', '', 1);
                 INSERT INTO imports (kind, source, state) VALUES ('items', 'items.csv', 'done')";
    execute(&mut connection, names).await;
    let caller = Caller::of(server).await;
    let request = SetConsentRequest {
        user_id: user(7),
        decisions: vec![ConsentDecision {
            purpose: Purpose::Marketing.into(),
            granted: true,
        }],
        decided_at: None,
        source: "web".to_owned(),
    };
    caller.privacy.clone().set_consent(request).await.unwrap();
    caller.buy("order-77", 1, &user(7), &item(3), 42).await;
    // A copy for undoing, and a response, with the number 4242 in JSON.
    let folder = scratch();
    let file = folder.path().join("items.csv");
    std::fs::write(
        &file,
        format!("item_id,title,price,currency\n{},Tea,42.42,GBP\n", item(3)),
    )
    .unwrap();
    succeed(database, &["import", "items", file.to_str().unwrap()]);
    let copied = "SELECT count(*) FROM import_copies WHERE row_after @> '{\"price_minor\": 4242}'";
    assert_eq!(number(&mut connection, copied).await, 1);
}

#[tokio::test]
async fn an_erasure_ends_though_something_else_has_the_name_of_the_user() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let key = KeyFile::of(KEY);
    let server = Server::with(&database, &[key.setting()]);
    name_everything(&database, &server).await;
    let (i03, u007) = (item(3), "u007x");
    let names = [
        u007,
        "web",
        "WELCOME10",
        "k-WELCOME10",
        &i03,
        "books",
        "m0",
        "till",
        "operator",
        "stock",
        "users",
        "4242",
        "42",
        "1",
        "order-77",
        "items.csv",
        "marketing",
        "GBP",
        "active",
        "the till",
    ];
    let caller = Caller::of(&server).await;
    for name in names {
        caller.rate(name, &item(1), 4.0).await;
    }
    let folder = scratch();
    let file = folder.path().join("users.txt");
    std::fs::write(&file, names.join("\n")).unwrap();
    let (code, printed, error) = run(&database, &["erase", "--file", file.to_str().unwrap(), &key.argument()]);
    assert!(code == 0 && printed.contains("20 verified"), "{printed} {error}");
    let mut found = findings(&mut connection).await;
    found.retain(|(is_verified, finding)| !is_verified || !finding.is_empty());
    // A text that somebody has written may mean the user: its column is named.
    found.sort();
    let expected = [
        (true, "api_keys.note".to_owned()),
        (true, "consent_events.source, consents.source".to_owned()),
    ];
    assert_eq!(found, expected);
    assert!(
        error.contains("consent_events.source, consents.source has the same text"),
        "{error}"
    );
    // Nothing of the others has changed.
    let source = "SELECT count(*) FROM consents WHERE source = 'web'";
    assert_eq!(number(&mut connection, source).await, 1);
}

#[tokio::test]
async fn an_id_that_is_found_keeps_the_erasure_open_until_it_is_removed() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let key = KeyFile::of(KEY);
    // A column that nothing is known about, as a later migration may add it.
    let later = "CREATE TABLE later (name text, names text[], facts jsonb);
                 INSERT INTO later VALUES ('u001', '{}', '{}'), ('', '{u002}', '{}'), ('', '{}', '[{\"of\": \"u003\"}]'),
                                          ('', '{}', '{\"u004\": 1}'), ('u', '{u00}', '[1, \"u0055\", 6]')";
    execute(&mut connection, later).await;
    let folder = scratch();
    let file = folder.path().join("users.txt");
    std::fs::write(&file, "u001\nu002\nu003\nu004\nu005\n6\n").unwrap();
    let (code, printed, error) = run(&database, &["erase", "--file", file.to_str().unwrap(), &key.argument()]);
    assert_eq!(code, 1, "{printed}");
    assert!(error.contains("the id of the user is still in later.name"), "{error}");
    let found: Vec<(String, String)> =
        sqlx::query_as("SELECT user_id, finding FROM erasures WHERE verified_at IS NULL ORDER BY 1")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let open = [
        ("u001", "later.name"),
        ("u002", "later.names"),
        ("u003", "later.facts"),
        ("u004", "later.facts"),
    ];
    assert_eq!(found, open.map(|(user, place)| (user.to_owned(), place.to_owned())));
    execute(&mut connection, "DELETE FROM later WHERE name = 'u001'").await;
    let (code, printed, _) = run(&database, &["erase", "--resume", &key.argument()]);
    assert!(code == 1 && printed.contains("1 verified"), "{printed}");
    execute(&mut connection, "DELETE FROM later").await;
    let printed = succeed(&database, &["erase", "--resume", &key.argument()]);
    assert!(printed.contains("3 verified"), "{printed}");
}

/// Erases user 1 up to clean snapshots, and returns its erasure.
async fn until_clean(pool: &Pool) -> i64 {
    let key = ErasureKey::new(KEY).unwrap();
    let users = [UserId::new(user(1)).unwrap()];
    let request = Request {
        users: &users,
        request_id: None,
        reason: "",
        actor: "test",
    };
    let received = erasures::receive(pool, &key, &request).await.unwrap();
    // Nobody verifies meanwhile.
    let lease = leases::acquire(pool, VERIFICATION_LEASE, "test", Duration::from_secs(600))
        .await
        .unwrap()
        .unwrap();
    eraser(pool).step(true).await.unwrap();
    leases::release(pool, &lease).await.unwrap();
    received[0].erasure_id
}

#[tokio::test]
async fn what_is_written_after_the_search_keeps_the_erasure_open() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let pool = database.pool().await;
    let erasure = until_clean(&pool).await;
    let lease = leases::acquire(&pool, VERIFICATION_LEASE, "test", Duration::from_secs(600))
        .await
        .unwrap()
        .unwrap();
    let wanted = erasures::wanted(&pool, 0, false).await.unwrap();
    assert_eq!(wanted.keys().copied().collect::<Vec<_>>(), [erasure]);
    let findings = erasures::search(&pool, &wanted).await.unwrap();
    assert_eq!(findings, erasures::Findings::default());
    let mut search = Search {
        wanted,
        findings,
        snapshots: HashSet::new(),
    };
    // A snapshot was published that nobody has searched.
    let finish = async |search: &Search| erasures::finish(&pool, &lease, search, "test").await.unwrap();
    assert_eq!(finish(&search).await, Finished::NotSearched);
    let ids = [(user(1), erasure)].into();
    assert_eq!(find(&pool, &ids, &mut search.snapshots).await.unwrap(), []);
    // A program that does not ask whether the user was erased.
    execute(&mut connection, "INSERT INTO users (external_id) VALUES ('u001')").await;
    assert_eq!(finish(&search).await, Finished::Verified(0));
    let open = (false, "users.external_id".to_owned());
    assert_eq!(self::findings(&mut connection).await, [open]);
    execute(&mut connection, "DELETE FROM users WHERE external_id = 'u001'").await;
    assert_eq!(finish(&search).await, Finished::Verified(1));
    assert_eq!(self::findings(&mut connection).await, [(true, String::new())]);
    // It ends once.
    assert_eq!(finish(&search).await, Finished::Verified(0));
    leases::release(&pool, &lease).await.unwrap();
    assert_eq!(finish(&search).await, Finished::LeaseLost);
}

#[tokio::test]
async fn erasures_that_follow_each_other_share_a_rewrite() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let key = KeyFile::of(KEY);
    for number in 0..5 {
        succeed(&database, &["erase", &user(number), "--no-wait", &key.argument()]);
    }
    let pool = database.pool().await;
    let mut eraser = eraser(&pool);
    eraser.settle = Duration::from_secs(3_600);
    eraser.step(false).await.unwrap();
    let rewritten = "SELECT max(redaction) FROM snapshots";
    let waiting = "SELECT count(*) FROM erasures WHERE rows_deleted_at IS NOT NULL AND snapshots_clean_at IS NULL";
    assert_eq!(
        (
            number(&mut connection, rewritten).await,
            number(&mut connection, waiting).await
        ),
        (0, 5)
    );
    // Once the time of the first is up, nobody waits any longer.
    execute(
        &mut connection,
        "UPDATE erasures SET received_at = received_at - interval '1 hour' WHERE id = (SELECT min(id) FROM erasures)",
    )
    .await;
    eraser.step(false).await.unwrap();
    assert_eq!(
        (
            number(&mut connection, rewritten).await,
            number(&mut connection, waiting).await
        ),
        (1, 0)
    );
    assert_eq!(self::findings(&mut connection).await, vec![(true, String::new()); 5]);
}
