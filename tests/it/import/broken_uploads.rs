//! Uploads that do not come to their end: clients that go away, servers that are killed or stop, and limits.

use likemind::grpc::proto::v1::{ImportKind, ImportState, StartImportRequest, StartImportResponse, UndoImportRequest};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};

use super::content::{Content, fresh_database};
use super::uploads::{HEADER, Imports, connect, get, list, ratings_options, upload};
use crate::support::answers::{assert_invalid, assert_nothing_internal, assert_status};
use crate::support::postgres::execute;
use crate::support::program::Server;
use crate::support::waiting::eventually;

/// An upload that goes on as long as its test wants.
struct OpenUpload {
    messages: Sender<StartImportRequest>,
    answer: JoinHandle<Result<StartImportResponse, Status>>,
}

impl OpenUpload {
    async fn begin(imports: &Imports) -> Self {
        let (messages, receiver) = channel(100);
        let mut client = imports.clone();
        let answer = tokio::spawn(async move {
            let answer = client.start_import(ReceiverStream::new(receiver)).await;
            answer.map(Response::into_inner)
        });
        let upload = Self { messages, answer };
        upload
            .messages
            .send(StartImportRequest {
                options: Some(ratings_options()),
                bytes: Vec::new(),
            })
            .await
            .unwrap();
        upload
    }

    async fn send(&self, text: &str) {
        for bytes in text.as_bytes().chunks(100_000) {
            let message = StartImportRequest {
                options: None,
                bytes: bytes.to_vec(),
            };
            self.messages.send(message).await.unwrap();
        }
    }
}

/// The lines that are judged before the first is stored, and some more.
fn many_lines() -> String {
    let line = |number| format!("u{number},i{},3,2020-01-01\n", number % 50);
    HEADER.to_owned() + &(0..12_000).map(line).collect::<String>()
}

/// Begins an upload and waits until lines are stored, while the rest of the file is still to come.
async fn half_way(content: &Content, imports: &Imports) -> (OpenUpload, i64) {
    let upload = OpenUpload::begin(imports).await;
    upload.send(&many_lines()).await;
    eventually(
        "the first lines are stored",
        async || content.number("SELECT count(*) FROM ratings").await,
        |count| *count == 10_000,
    )
    .await;
    let import = list(imports).await.remove(0);
    assert_eq!(import.state(), ImportState::Running, "{import:?}");
    (upload, import.import_id)
}

#[tokio::test]
async fn a_file_that_breaks_off_is_imported_up_to_there_and_says_so() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let mut file = zstd::encode_all(many_lines().as_bytes(), 1).unwrap();
    file.truncate(file.len() - 10);
    let answer = upload(&imports, ratings_options(), &file).await.unwrap();
    let problem = answer.problem.unwrap();
    assert_eq!(problem.reason, "UNREADABLE_FILE");
    assert_nothing_internal(&problem.message);
    let import = answer.import.unwrap();
    assert_eq!(import.state(), ImportState::Stopped);
    let stored = content.number("SELECT count(*) FROM ratings").await;
    assert_eq!(import.stored as i64, stored);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_what_was_stored_and_the_import_says_so() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let (open, id) = half_way(&content, &imports).await;
    open.answer.abort();
    let import = eventually(
        "the import is stopped",
        async || get(&imports, id).await,
        |import| import.state() != ImportState::Running,
    )
    .await;
    // Dropped while the call is there, they would tell the server that the file has come to its end.
    drop(open.messages);
    assert_eq!(
        (import.state(), import.kind()),
        (ImportState::Stopped, ImportKind::Ratings)
    );
    let stored = content.number("SELECT count(*) FROM ratings").await;
    assert!((10_000..=12_000).contains(&stored), "{stored}");
    assert_eq!((import.stored as i64, import.rejected), (stored, 0));
    // The same file again completes it.
    let answer = upload(&imports, ratings_options(), many_lines().as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.summary.unwrap().read, 12_000);
    assert_eq!(content.number("SELECT count(*) FROM ratings").await, 12_000);
}

#[tokio::test]
async fn an_import_of_a_killed_server_is_abandoned_and_can_be_undone() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let (upload, id) = half_way(&content, &imports).await;
    let running = imports.clone().undo_import(UndoImportRequest { import_id: id }).await;
    assert_status(&running.unwrap_err(), Code::FailedPrecondition, "IMPORT_RUNNING");
    server.program.kill();
    upload.answer.await.unwrap().unwrap_err();

    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    assert_eq!(get(&imports, id).await.state(), ImportState::Running);
    execute(
        &mut content.database.connect().await,
        "UPDATE imports SET alive_at = alive_at - interval '31 seconds'",
    )
    .await;
    assert_eq!(get(&imports, id).await.state(), ImportState::Abandoned);
    assert_eq!(content.number("SELECT count(*) FROM ratings").await, 10_000);
    let answer = imports.clone().undo_import(UndoImportRequest { import_id: id }).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(
        (answer.removed, answer.import.unwrap().state()),
        (10_000, ImportState::Undone)
    );
    assert_eq!(content.number("SELECT count(*) FROM ratings").await, 0);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_imports() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let (upload, id) = half_way(&content, &imports).await;
    let (status, _) = server.drain().await;
    assert!(status.success(), "{status:?}");
    let refused = upload.answer.await.unwrap().unwrap_err();
    assert_status(&refused, Code::Unavailable, "IMPORT_INTERRUPTED");
    assert!(
        refused.message().contains(&format!("import {id} was ended after line")),
        "{refused:?}"
    );
    let server = Server::start(&content.database);
    let import = get(&connect(&server, None).await, id).await;
    assert_eq!(import.state(), ImportState::Interrupted);
    assert_eq!(
        import.stored as i64,
        content.number("SELECT count(*) FROM ratings").await
    );
}

#[tokio::test]
async fn uploads_are_limited() {
    let content = fresh_database().await;
    let settings = [
        ("import.max_upload_bytes", "500000"),
        ("import.max_uploads", "1"),
        ("import.upload_timeout_ms", "1500"),
    ];
    let server = Server::with(&content.database, &settings);
    let imports = connect(&server, None).await;
    let (open, id) = half_way(&content, &imports).await;
    let second = upload(&imports, ratings_options(), HEADER.as_bytes()).await;
    assert_status(&second.unwrap_err(), Code::ResourceExhausted, "TOO_MANY_IMPORTS");
    let stalled = open.answer.await.unwrap().unwrap_err();
    assert_status(&stalled, Code::DeadlineExceeded, "UPLOAD_STALLED");
    assert_eq!(get(&imports, id).await.state(), ImportState::Stopped);

    let line = "u,i,3,2020-01-01\n".repeat(30_000);
    let large = upload(&imports, ratings_options(), format!("{HEADER}{line}").as_bytes()).await;
    let large = large.unwrap_err();
    assert_status(&large, Code::InvalidArgument, "UPLOAD_TOO_LARGE");
    assert!(large.message().contains("500000 bytes"), "{large:?}");
    // A small file that would be large on disk.
    let bomb = zstd::encode_all([b"PAR1".as_slice(), &[0; 1_000_000]].concat().as_slice(), 1).unwrap();
    let bomb = upload(&imports, ratings_options(), &bomb).await.unwrap_err();
    assert_invalid(&bomb, "UNREADABLE_FILE", &["bytes"]);
    assert!(bomb.message().contains("more than 500000 bytes"), "{bomb:?}");
}
