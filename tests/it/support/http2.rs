//! HTTP/2 frame by frame, for what no library of a client does.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::program::Server;
use super::waiting::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame of the server.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// A connection whose client does only what it is told to.
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    /// Opens a connection and begins HTTP/2 with no settings.
    pub fn open(server: &Server) -> Self {
        Self::open_with(server, &[])
    }

    /// Opens a connection that takes `window` bytes of each answer.
    pub fn open_with_window(server: &Server, window: u32) -> Self {
        // SETTINGS_INITIAL_WINDOW_SIZE
        Self::open_with(server, &[&[0, 4][..], &window.to_be_bytes()].concat())
    }

    fn open_with(server: &Server, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self { stream };
        connection.write(PREFACE);
        connection.write(&frame(SETTINGS, 0, 0, settings));
        connection
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Returns the server's next frame; `None` when it has closed the connection.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    }

    /// Waits until the server has read everything that was written. Returns a GOAWAY if it sends one before.
    pub fn wait_until_read(&mut self) -> Option<Frame> {
        let mark = *b"all read";
        self.write(&frame(PING, 0, 0, &mark));
        loop {
            let frame = self.read().expect("the server has closed the connection");
            match frame.kind {
                GOAWAY => return Some(frame),
                PING if frame.flags & ACK != 0 && frame.payload == mark => return None,
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the frame that begins a call of `path`.
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    // Indexes of the static table of HPACK: POST, http; then a literal each.
    let mut block = vec![0x83, 0x86];
    literal(&mut block, 4, path);
    literal(&mut block, 1, "localhost");
    // content-type
    block.extend([0x0f, 0x10]);
    push_text(&mut block, "application/grpc");
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// `name`: an index of the static table below 15.
fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(name);
    push_text(block, value);
}

fn push_text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).unwrap());
    block.extend(text.as_bytes());
}

/// Returns a frame with part of a call's request, or with its end.
pub fn data(stream: u32, bytes: &[u8], is_end: bool) -> Vec<u8> {
    frame(DATA, if is_end { END_STREAM } else { 0 }, stream, bytes)
}

/// Returns the frames of a call of `path` with an empty message.
pub fn whole_call(stream: u32, path: &str) -> Vec<u8> {
    [call(stream, path), data(stream, &[0; 5], true)].concat()
}

/// Returns the frame that gives up a call.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}
