//! Imports that are interrupted, killed, or lose their database or their input.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Cursor, Read};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use likemind::app::import::rejects::RejectsTo;
use likemind::app::import::{ImportError, ImportKind, ImportOptions, Progress, StopCause, import};
use likemind::store::error::StoreError;
use likemind::store::postgres::options::DatabaseOptions;
use likemind::store::postgres::pool::Pool;
use tabular::input::Input;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::content::{
    Content, assert_adds_up, counts, fresh_database, many_purchases, many_ratings, rejects, small_batches,
};
use crate::support::postgres::scratch;
use crate::support::waiting::eventually;

/// Interrupts an import after its fifth batch. The import completes that batch and the next one, which is handed over already,
/// and reports the lines up to there.
async fn interrupt(database: &Content, kind: ImportKind, text: &str) {
    let interrupt = CancellationToken::new();
    let mut batches = 0;
    let input = Input::new("test", Cursor::new(text.to_owned().into_bytes()), None);
    let options = small_batches(kind);
    let count = |_: Progress<'_>| {
        batches += 1;
        if batches == 5 {
            interrupt.cancel();
        }
    };
    let summary = import(&database.pool, input, &options, &interrupt, count)
        .await
        .unwrap();
    assert!(summary.interrupted);
    assert_eq!((batches, summary.read, summary.last_line), (6, 126, 127));
    assert_adds_up(&summary);
}

/// Starts an import and drops its future after so many polls, with transactions under way.
async fn drop_after(polls: usize, database: &Content, kind: ImportKind, text: &str) {
    let input = Input::new("test", Cursor::new(text.to_owned().into_bytes()), None);
    let interrupt = CancellationToken::new();
    let options = small_batches(kind);
    let mut running = pin!(import(&database.pool, input, &options, &interrupt, |_| {}));
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match running.as_mut().poll(context) {
            Poll::Pending if polled < polls => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_import_completes_what_interrupted_and_killed_ones_have_left() {
    let database = fresh_database().await;
    for (kind, text) in [
        (ImportKind::Ratings, many_ratings()),
        (ImportKind::Purchases, many_purchases()),
    ] {
        let whole = fresh_database().await;
        whole.import(text.as_str(), &small_batches(kind)).await.unwrap();
        let expected = whole.content().await;

        interrupt(&database, kind, &text).await;
        if kind == ImportKind::Purchases {
            assert_eq!(database.number("SELECT count(*) FROM purchases").await, 126);
        }
        for polls in [3, 10, 25, 60] {
            drop_after(polls, &database, kind, &text).await;
        }
        let summary = database.import(text.as_str(), &small_batches(kind)).await.unwrap();
        assert!(!summary.interrupted);
        assert_eq!(database.content().await, expected, "{kind:?}");
        // The role switches off the triggers that keep records from being changed.
        let empty = "SET LOCAL session_replication_role = replica; TRUNCATE ratings, purchases, users, items CASCADE";
        sqlx::raw_sql(empty).execute(&database.sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_is_imported_up_to_its_last_whole_line() {
    let database = fresh_database().await;
    let mut compressed = Vec::new();
    for part in many_ratings().as_bytes().chunks(1_000) {
        compressed.extend(zstd::encode_all(part, 1).unwrap());
    }
    compressed.truncate(compressed.len() - 10);
    let error = database
        .import(compressed, &small_batches(ImportKind::Ratings))
        .await
        .unwrap_err();
    let ImportError::Stopped {
        cause: StopCause::Read(_),
        summary,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_adds_up(&summary);
    assert!(summary.read > 460, "{summary:?}");
    assert!(database.number("SELECT count(*) FROM ratings").await > 0);
}

#[tokio::test]
async fn an_import_stops_at_the_line_that_exceeds_the_limit_of_rejects() {
    let database = fresh_database().await;
    let folder = scratch();
    let path = folder.path().join("rejects.csv");
    let lines: String = (0..300).map(|line| format!("u{line},i,{}\n", line % 10)).collect();
    let text = format!("user_id,item_id,value\n{lines}");
    let limited = |max| ImportOptions {
        max_rejects: Some(max),
        rejects: RejectsTo::File(path.clone()),
        ..small_batches(ImportKind::Ratings)
    };
    // Half of the lines are bad: the 41st of them is the first of the ninth ten. So early nothing is stored.
    let error = database.import(text.as_str(), &limited(40)).await.unwrap_err();
    let message = error.to_string();
    let ImportError::Rejected { summary, .. } = error else {
        panic!("{error:?}")
    };
    assert_adds_up(&summary);
    assert_eq!((summary.rejected, summary.last_line), (41, 82));
    assert!(message.contains("stopped at line 82"), "{message}");
    assert_eq!(rejects(&path).len(), 41);
    assert_eq!(database.number("SELECT count(*) FROM ratings").await, 0);

    let enough = database.import(text.as_str(), &limited(150)).await.unwrap();
    assert_eq!((enough.read, enough.rejected), (300, 150));
}

#[tokio::test]
async fn an_import_goes_on_when_its_connections_are_terminated() {
    let database = fresh_database().await;
    let text = many_purchases();
    let input = Input::new("test", Cursor::new(text.into_bytes()), None);
    // All connections of the import are terminated again and again while it writes its 20 batches.
    let (batches, killed) = (Cell::new(0), Cell::new(0));
    let count = |_: Progress<'_>| batches.set(batches.get() + 1);
    let kill = async {
        for batch in [1, 4, 7, 10, 13] {
            eventually(
                &format!("batch {batch} is written"),
                async || batches.get(),
                |&batches| batches >= batch,
            )
            .await;
            let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                             WHERE datname = current_database() AND pid <> pg_backend_pid()";
            killed.set(killed.get() + database.number(terminate).await);
        }
    };
    let options = small_batches(ImportKind::Purchases);
    let interrupt = CancellationToken::new();
    let (summary, ()) = tokio::join!(import(&database.pool, input, &options, &interrupt, count), kill);
    let summary = summary.unwrap();
    assert!(killed.get() > 0);
    assert_adds_up(&summary);
    // A batch that was stored just before its connection was lost is merged the second time.
    assert_eq!((summary.read, summary.rejected), (400, 0));
    assert_eq!(database.number("SELECT count(*) FROM purchases").await, 400);
}

#[tokio::test]
async fn an_import_ends_when_the_database_stays_away_longer_than_its_patience() {
    // Nobody listens on port 1.
    let pool = Pool::lazy("postgres://postgres@127.0.0.1:1/nowhere", &DatabaseOptions::default()).unwrap();
    let options = ImportOptions {
        patience: Duration::from_millis(300),
        ..small_batches(ImportKind::Ratings)
    };
    let input = || Input::new("test", Cursor::new(many_ratings().into_bytes()), None);
    let error = import(&pool, input(), &options, &CancellationToken::new(), |_| {})
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("stopped before anything was stored"),
        "{error}"
    );
    let ImportError::Stopped {
        cause: StopCause::Store(StoreError::Unavailable(_)),
        summary,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(counts(&summary), (0, 0, 0, 0));
}

#[tokio::test]
async fn an_import_that_waits_for_the_database_can_be_interrupted() {
    // This database accepts connections and closes them at once.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://postgres@{}/nowhere", listener.local_addr().unwrap());
    let pool = Pool::lazy(&url, &DatabaseOptions::default()).unwrap();
    let options = ImportOptions {
        patience: Duration::from_secs(600),
        ..small_batches(ImportKind::Ratings)
    };
    let input = Input::new("test", Cursor::new(many_ratings().into_bytes()), None);
    let interrupt = CancellationToken::new();
    let interrupt_a_retry = async {
        for _ in 0..10 {
            drop(listener.accept().await.unwrap());
        }
        interrupt.cancel();
    };
    let (summary, ()) = tokio::join!(import(&pool, input, &options, &interrupt, |_| {}), interrupt_a_retry);
    assert!(summary.unwrap().interrupted);
}

/// Standard input of a program that writes nothing. It reports when it is read.
struct Silence(mpsc::Sender<()>);

impl Read for Silence {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.send(()).unwrap();
        loop {
            std::thread::park();
        }
    }
}

#[tokio::test]
async fn an_import_that_waits_for_its_input_can_be_interrupted() {
    let pool = Pool::lazy("postgres://postgres@127.0.0.1:1/nowhere", &DatabaseOptions::default()).unwrap();
    for text in ["", "user_id,item_id,value\nann,tea,5\n"] {
        let (sender, is_read) = mpsc::channel();
        let input = Input::new("silence", Cursor::new(text).chain(Silence(sender)), None);
        let (pool, interrupt) = (pool.clone(), CancellationToken::new());
        let importing = tokio::spawn({
            let interrupt = interrupt.clone();
            let options = ImportOptions::new(ImportKind::Ratings);
            async move { import(&pool, input, &options, &interrupt, |_| {}).await }
        });
        let look = async || is_read.try_recv();
        eventually("the import reads its input", look, Result::is_ok)
            .await
            .unwrap();
        interrupt.cancel();
        let summary = importing.await.unwrap().unwrap();
        assert!(summary.interrupted);
        assert_eq!(summary.read, 0);
    }
}
