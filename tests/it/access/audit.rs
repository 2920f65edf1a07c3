//! Important actions are audited, and secrets are not logged.

use crate::rpc::bad_input::cases::{valid_call, valid_requests};
use crate::rpc::bad_input::dynamic::{DynamicClient, method_name, methods};
use crate::support::api_keys::{bearer, create_key, id_of, secret_of};
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, succeed};
use crate::support::shop;

/// Returns the audit rows in order: the action, the subject and the kind of the actor.
async fn audited(database: &TestDatabase) -> Vec<(String, String, String)> {
    sqlx::query_as("SELECT action, subject, substring(actor from '^[a-z]+') FROM audit ORDER BY id")
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn activations_and_changes_of_keys_are_audited_and_the_audit_cannot_be_changed() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "operator"]);
    let unused = create_key(&database, &["--role", "service"]);
    succeed(&database, &["keys", "revoke", id_of(&unused)]);
    shop::train(database.url());
    let server = Server::start(&database);
    let nobody = DynamicClient::new(server.channel().await);
    let call = async |name: &str| {
        let (method, request) = &valid_call(name);
        nobody.authorized(bearer(&key)).call(method, request).await.unwrap();
    };
    call("ModelService/RollbackSnapshot").await;
    call("ModelService/GetServingStatus").await;
    sqlx::query("UPDATE snapshots SET state = 'rejected' WHERE version = 2")
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    succeed(&database, &["snapshots", "activate", "2", "--reason", "we know better"]);
    let row = |action: &str, subject: &str, actor: &str| (action.to_owned(), subject.to_owned(), actor.to_owned());
    assert_eq!(
        audited(&database).await,
        [
            row("SNAPSHOT_ACTIVATED", "snapshot 1", "process"),
            row("KEY_CREATED", id_of(&key), "process"),
            row("KEY_CREATED", id_of(&unused), "process"),
            row("KEY_REVOKED", id_of(&unused), "process"),
            row("SNAPSHOT_ACTIVATED", "snapshot 2", "process"),
            row("SNAPSHOT_ROLLED_BACK", "snapshot 1", "key"),
            row("SNAPSHOT_FORCED", "snapshot 2", "process"),
        ]
    );
    let mut connection = database.connect().await;
    for statement in ["UPDATE audit SET note = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let error = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("rows of audit are never changed"), "{error}");
    }
    assert_eq!(audited(&database).await.len(), 7);
}

#[tokio::test]
async fn no_secret_is_logged() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "admin"]);
    let server = Server::with(&database, &[("telemetry.log_filter", "trace")]);
    let nobody = DynamicClient::new(server.channel().await);
    for method in methods() {
        let request = &valid_requests(&method_name(&method), &method.input())[0];
        let _ = nobody.authorized(bearer(&key)).call(&method, request).await;
        let _ = nobody.authorized(key.clone()).call(&method, request).await;
    }
    let log = server.program.log();
    assert!(
        log.contains(&format!("key:{}", id_of(&key))),
        "the log does not name the key that calls"
    );
    let secret = secret_of(&key);
    let leak = log
        .lines()
        .find(|line| line.contains(secret) || line.replace("`Bearer <key>`", "").contains("Bearer"));
    assert_eq!(leak, None);
}
