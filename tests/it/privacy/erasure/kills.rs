//! A server that is killed in any stage leaves an erasure that the next one ends, once.

use crate::support::erasures::{ErasureClient, KEY, KeyFile, traces};
use crate::support::postgres::{execute, number, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::shop;
use crate::support::waiting::eventually;

/// A trigger that waits for the test in the transaction that reaches a stage.
struct Hold {
    stage: &'static str,
    event: &'static str,
    condition: &'static str,
}

const HOLDS: [Hold; 4] = [
    Hold {
        stage: "masked",
        event: "UPDATE ON erasures",
        condition: "NEW.masked_at IS NOT NULL AND OLD.masked_at IS NULL",
    },
    Hold {
        stage: "rows deleted",
        event: "UPDATE ON erasures",
        condition: "NEW.rows_deleted_at IS NOT NULL AND OLD.rows_deleted_at IS NULL",
    },
    Hold {
        stage: "snapshots clean",
        event: "INSERT ON snapshot_chunks",
        condition: "NEW.part = 'users'",
    },
    Hold {
        stage: "verified",
        event: "UPDATE ON erasures",
        condition: "NEW.verified_at IS NOT NULL",
    },
];

#[tokio::test]
async fn a_server_killed_in_any_stage_leaves_an_erasure_that_ends_once() {
    for hold in HOLDS {
        let database = shop::open().await;
        let mut connection = database.connect().await;
        let trigger = format!(
            "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END';
             CREATE TRIGGER hold BEFORE {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION wait_for_test();
             SELECT pg_advisory_lock(1)",
            hold.event, hold.condition
        );
        execute(&mut connection, &trigger).await;
        let key = KeyFile::of(KEY);
        let server = Server::with(&database, &[key.setting()]);
        let client = ErasureClient::of(&server).await;
        let begun = client.erase("u001", "r").await.unwrap();
        let mut watch = database.connect().await;
        let waiting = async || sessions_waiting_for_a_lock(&mut watch).await;
        eventually(
            &format!("the server is about to reach {}", hold.stage),
            waiting,
            |sessions| *sessions > 0,
        )
        .await;
        server.program.kill();
        // A process that is killed while it rewrites snapshots or verifies holds the lease for some more seconds.
        let table = hold.event.rsplit(' ').next().unwrap();
        let go_on = format!(
            "SELECT pg_advisory_unlock(1); DROP TRIGGER hold ON {table};
             UPDATE leases SET expires_at = clock_timestamp() WHERE name IN ('redaction', 'verification');
             UPDATE servers SET seen_at = seen_at - interval '1 hour'"
        );
        execute(&mut connection, &go_on).await;
        assert_ne!(
            traces(&mut connection, "u001").await,
            Vec::<String>::new(),
            "{}",
            hold.stage
        );

        let server = Server::with(&database, &[key.setting()]);
        let client = ErasureClient::of(&server).await;
        client.verified(begun.erasure_id).await;
        assert_eq!(
            traces(&mut connection, "u001").await,
            Vec::<String>::new(),
            "{}",
            hold.stage
        );
        for action in ["USERS_ERASED", "ERASURES_VERIFIED"] {
            let recorded = format!("SELECT count(*) FROM audit WHERE action = '{action}'");
            assert_eq!(
                number(&mut connection, &recorded).await,
                1,
                "{action} after a kill in {}",
                hold.stage
            );
        }
    }
}
