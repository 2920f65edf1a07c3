//! A connection, plain or with TLS.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

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

impl Connection {
    /// Moves the connection to the runtime of this thread, so that it no longer depends on the runtime that accepted it.
    ///
    /// It is cut off when it has lived for `longest`.
    ///
    /// # Errors
    /// As a rule, the process has reached its limit of open files.
    pub fn adopted(self, longest: Option<Duration>) -> io::Result<Adopted> {
        let connection = match self {
            Self::Plain(stream) => Self::Plain(TcpStream::from_std(stream.into_std()?)?),
            Self::Secured(mut secured) => {
                // The stream cannot be taken out of the TLS session, so it is replaced by a second descriptor of its socket.
                let stream = secured.get_mut().0;
                let same = stream.as_fd().try_clone_to_owned()?;
                *stream = TcpStream::from_std(same.into())?;
                Self::Secured(secured)
            }
        };
        Ok(Adopted {
            connection,
            end: longest.map(|longest| Box::pin(tokio::time::sleep(longest))),
        })
    }
}

/// A connection on its serving thread.
pub struct Adopted {
    connection: Connection,
    /// The moment at which it is cut off.
    end: Option<Pin<Box<Sleep>>>,
}

impl Adopted {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut Connection> {
        Pin::new(&mut self.get_mut().connection)
    }
}

impl Connected for Adopted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.connection.connect_info()
    }
}

impl AsyncRead for Adopted {
    /// Fails once the connection is too old. HTTP/2 always waits for the next frame, so that this is noticed at once.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_over = |end: &mut Pin<Box<Sleep>>| end.as_mut().poll(context).is_ready();
        if self.end.as_mut().is_some_and(is_over) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Adopted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream) => stream.connect_info(),
            Self::Secured(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        on_either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
