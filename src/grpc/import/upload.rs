//! Hands the bytes that a client uploads to the thread that reads them.

use std::io::{self, Cursor, Read};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use crate::admission::StreamAuthorization;
use crate::app::import::settings::ImportSettings;
use crate::grpc::caller::stream_authorization;
use crate::grpc::proto::v1::{ImportOptions, StartImportRequest};
use crate::grpc::status::{self, invalid_argument};
use domain::error::InvalidField;
use tabular::input::Input;

/// The number of messages that wait for the reading thread. Others wait at the client.
const MESSAGES_AHEAD: usize = 2;

/// A stream of messages with the options and the bytes of a file.
pub struct Upload {
    authorization: StreamAuthorization,
    stream: Streaming<StartImportRequest>,
    max_bytes: u64,
    timeout: Duration,
}

/// The sending end of a pipe to the reading thread. If it is dropped before the end of the file was sent, reading fails.
pub struct Feed(mpsc::Sender<Chunk>);

enum Chunk {
    Bytes(Vec<u8>),
    End,
}

/// Makes a pipe: what goes into the feed comes out of the input.
pub fn pipe(source: String) -> (Feed, Input) {
    let (sender, chunks) = mpsc::channel(MESSAGES_AHEAD);
    let reader = ChunkReader {
        chunks,
        bytes: Cursor::default(),
        is_at_end: false,
    };
    (Feed(sender), Input::new(source, reader, None))
}

impl Upload {
    /// # Errors
    /// INTERNAL for a call that has not come through admission.
    pub fn new(request: Request<Streaming<StartImportRequest>>, settings: &ImportSettings) -> Result<Self, Status> {
        Ok(Self {
            authorization: stream_authorization(&request)?,
            stream: request.into_inner(),
            max_bytes: settings.max_upload_bytes,
            timeout: settings.upload_timeout(),
        })
    }

    /// Returns the options and the first bytes, which the first message has.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it has no options, and those of [`feed`](Self::feed).
    pub async fn first(&mut self) -> Result<(ImportOptions, Vec<u8>), Status> {
        let first = self.next().await?.unwrap_or_default();
        let missing = || refused("MISSING", "must be given in the first message");
        Ok((first.options.ok_or_else(missing)?, first.bytes))
    }

    /// Hands over `first` and the bytes of all further messages, as fast as they are read. Ends early when nobody reads any
    /// more.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a second message with options, or for more bytes than a file may have; DEADLINE_EXCEEDED when the
    /// next message is too long in coming; UNAUTHENTICATED when the client's key is no longer valid; an error of the stream.
    pub async fn feed(&mut self, Feed(sender): Feed, first: Vec<u8>) -> Result<(), Status> {
        let (mut bytes, mut n_bytes) = (first, 0);
        loop {
            n_bytes += bytes.len() as u64;
            if n_bytes > self.max_bytes {
                return Err(status::upload_too_large(self.max_bytes));
            }
            if sender.send(Chunk::Bytes(bytes)).await.is_err() {
                return Ok(());
            }
            let Some(message) = self.next().await? else { break };
            if message.options.is_some() {
                return Err(refused("NOT_FIRST", "must be given in the first message only"));
            }
            bytes = message.bytes;
        }
        // This fails if the reading thread has ended.
        let _ = sender.send(Chunk::End).await;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<StartImportRequest>, Status> {
        let message = tokio::time::timeout(self.timeout, self.stream.message()).await;
        let message = message.map_err(|_| status::upload_stalled(self.timeout))??;
        self.authorization.check()?;
        Ok(message)
    }
}

fn refused(reason: &'static str, problem: &str) -> Status {
    invalid_argument(vec![InvalidField::new("options", reason, problem)])
}

/// Reads what comes out of a pipe.
struct ChunkReader {
    chunks: mpsc::Receiver<Chunk>,
    bytes: Cursor<Vec<u8>>,
    is_at_end: bool,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.bytes.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.is_at_end {
                return Ok(count);
            }
            match self.chunks.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.bytes = Cursor::new(bytes),
                Some(Chunk::End) => self.is_at_end = true,
                None => return Err(io::Error::other("the upload broke off")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_only_where_its_end_was_sent() {
        let check = |chunks: Vec<Chunk>, expected: Result<&str, &str>| {
            let (sender, receiver) = mpsc::channel(chunks.len().max(1));
            for chunk in chunks {
                sender.try_send(chunk).map_err(|_| "full").unwrap();
            }
            drop(sender);
            let mut reader = ChunkReader {
                chunks: receiver,
                bytes: Cursor::default(),
                is_at_end: false,
            };
            let read = io::read_to_string(&mut reader).map_err(|error| error.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expected);
        };
        let bytes = |text: &str| Chunk::Bytes(text.as_bytes().to_vec());
        check(vec![bytes("a,"), bytes(""), bytes("b\n"), Chunk::End], Ok("a,b\n"));
        check(vec![Chunk::End], Ok(""));
        check(vec![bytes("a,b\n")], Err("the upload broke off"));
        check(vec![], Err("the upload broke off"));
    }
}
