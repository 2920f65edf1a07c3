//! A connection, plain or with TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Accepted;
use super::open_connections::Place;
use crate::grpc::peer::Peer;

/// The bytes that every connection with HTTP/2 begins with.
///
/// Source: RFC 9113, 3.4.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub enum Connection {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Evaluates `$call` on the stream of either kind.
macro_rules! on_either {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection {
            Connection::Plain($stream) => $call,
            Connection::Secured($stream) => $call,
        }
    };
}

impl Accepted {
    /// Moves the connection to the runtime of this thread, so that it no longer depends on the runtime that accepted it.
    ///
    /// # Errors
    /// As a rule, the process has reached its limit of open files.
    pub fn adopted(self) -> io::Result<Adopted> {
        let connection = match self.connection {
            Connection::Plain(stream) => Connection::Plain(TcpStream::from_std(stream.into_std()?)?),
            Connection::Secured(mut secured) => {
                // The stream cannot be taken out of the TLS session, so it is replaced by a second descriptor of its socket.
                let stream = secured.get_mut().0;
                let same = stream.as_fd().try_clone_to_owned()?;
                *stream = TcpStream::from_std(same.into())?;
                Connection::Secured(secured)
            }
        };
        Ok(Adopted {
            connection,
            first: [0; PREFACE.len()],
            unread: 0..0,
            peer: Arc::new(Peer::new(self.address)),
            place: self.place,
        })
    }
}

/// The version of HTTP that a client speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http2,
    /// Or no HTTP at all.
    Http1,
}

/// A connection on its serving thread.
pub struct Adopted {
    connection: Connection,
    /// The bytes by which the version was found out, and which of them have not been read again.
    first: [u8; PREFACE.len()],
    unread: std::ops::Range<usize>,
    peer: Arc<Peer>,
    place: Place,
}

impl Adopted {
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub fn address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// Reads until it is clear which version of HTTP the client speaks. What is read is read again later. Returns `None` when
    /// the client goes away, or when the connection is closed to make room for another one.
    pub async fn version(&mut self) -> Option<Version> {
        let mut read = 0;
        let version = loop {
            let more = &mut self.first[read..];
            let reading = async { on_either!(&mut self.connection, stream => stream.read(more).await) };
            let bytes = tokio::select! {
                bytes = reading => bytes.ok()?,
                () = self.place.closed() => return None,
            };
            if bytes == 0 {
                return None;
            }
            read += bytes;
            if self.first[..read] != PREFACE[..read] {
                break Version::Http1;
            }
            if read == PREFACE.len() {
                break Version::Http2;
            }
        };
        self.unread = 0..read;
        self.place.has_begun();
        Some(version)
    }

    /// Tells the peer whether it takes what is written. With TLS, only a flush shows it.
    fn note_written<T>(&self, written: Poll<T>, is_flush: bool) -> Poll<T> {
        let shows_progress = matches!(self.connection, Connection::Secured(_)) == is_flush;
        match written {
            Poll::Pending => self.peer.note_blocked(),
            Poll::Ready(_) if shows_progress => self.peer.note_progress(),
            Poll::Ready(_) => {}
        }
        written
    }
}

impl AsyncRead for Adopted {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let adopted = self.get_mut();
        if !adopted.unread.is_empty() {
            let bytes = adopted.unread.len().min(buffer.remaining());
            let start = adopted.unread.start;
            buffer.put_slice(&adopted.first[start..start + bytes]);
            adopted.unread.start += bytes;
            return Poll::Ready(Ok(()));
        }
        on_either!(&mut adopted.connection, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Adopted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let adopted = self.get_mut();
        let written = on_either!(&mut adopted.connection, stream => Pin::new(stream).poll_write(context, bytes));
        adopted.note_written(written, false)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let adopted = self.get_mut();
        let written =
            on_either!(&mut adopted.connection, stream => Pin::new(stream).poll_write_vectored(context, slices));
        adopted.note_written(written, false)
    }

    fn is_write_vectored(&self) -> bool {
        on_either!(&self.connection, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let adopted = self.get_mut();
        let flushed = on_either!(&mut adopted.connection, stream => Pin::new(stream).poll_flush(context));
        adopted.note_written(flushed, true)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(&mut self.get_mut().connection, stream => Pin::new(stream).poll_shutdown(context))
    }
}
