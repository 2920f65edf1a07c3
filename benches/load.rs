//! Sends calls by HTTP/2, each with the next of many messages; h2load can send only one. Prints one JSON object.
//!
//! Answers are counted and timed but not decoded; a call that is not answered with a message is an error. A call that is due
//! while its connection has as many streams as the server allows waits in the client, and its time counts from when it was
//! due.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

#[derive(Parser)]
struct Args {
    address: String,
    /// Path of the method, such as `/likemind.v1.RecommendationService/Recommend`
    path: String,
    /// File of messages one after the other, framed as gRPC frames them; they are sent in turn
    messages: PathBuf,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Calls at a time on each connection
    #[arg(long, default_value_t = 64)]
    streams: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Ends after this many calls instead
    #[arg(long)]
    calls: Option<usize>,
    /// Calls a second, sent at even distances whether or not earlier ones are answered; else every stream is kept busy
    #[arg(long)]
    rate: Option<f64>,
    /// API key, sent as a bearer token
    #[arg(long)]
    key: Option<String>,
    /// Ignored: cargo adds it
    #[arg(long, hide = true)]
    bench: bool,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const FRAME_HEADER: usize = 9;
/// Bytes that the server may send before the client has to allow more.
const WINDOW: u32 = (1 << 31) - 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// Streams of a connection until the server has said how many it allows; RFC 9113 recommends at least this many.
const STREAMS_AT_FIRST: usize = 100;

fn main() {
    let args = Args::parse();
    let messages = messages(&std::fs::read(&args.messages).expect("the messages cannot be read"));
    let mut next_message = messages.iter().cycle();
    let mut connections: Vec<Connection<'_>> = (0..args.connections)
        .map(|_| Connection::open(&args).expect("cannot connect"))
        .collect();
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(args.seconds);
    let max_calls = args.calls.unwrap_or(usize::MAX);
    let mut begun = 0;
    let mut latencies_ns: Vec<u32> = Vec::new();
    loop {
        let now = Instant::now();
        let is_over = begun == max_calls || args.calls.is_none() && now >= end;
        match args.rate {
            _ if is_over => {}
            None => {
                for connection in &mut connections {
                    while connection.unanswered() < args.streams && begun < max_calls {
                        connection.call(next_message.next().expect("a cycle does not end"), now);
                        begun += 1;
                    }
                }
            }
            Some(rate) => loop {
                let due = started + Duration::from_secs_f64(begun as f64 / rate);
                if due > now || begun == max_calls {
                    break;
                }
                let turn = begun % connections.len();
                connections[turn].call(next_message.next().expect("a cycle does not end"), due);
                begun += 1;
            },
        }
        if is_over && connections.iter().all(|connection| connection.unanswered() == 0) {
            break;
        }
        // At a rate the next call may be due at any moment, so this loop does not sleep; its core has nothing else to do.
        wait(&connections, if args.rate.is_some() { 0 } else { 1_000 });
        for connection in &mut connections {
            connection.exchange(&mut latencies_ns).expect("the connection broke");
        }
    }
    let took = started.elapsed().as_secs_f64();
    latencies_ns.sort_unstable();
    let quantile_us = |q: f64| f64::from(latencies_ns[((latencies_ns.len() - 1) as f64 * q) as usize]) / 1e3;
    println!(
        "{{\"calls\": {begun}, \"per_second\": {:.1}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
        begun as f64 / took,
        quantile_us(0.5),
        quantile_us(0.99)
    );
}

fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.get(1..5) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let (message, rest) = bytes.split_at(5 + length);
        messages.push(message.to_vec());
        bytes = rest;
    }
    assert!(!messages.is_empty() && bytes.is_empty(), "no messages");
    messages
}

fn wait(connections: &[Connection<'_>], timeout_ms: i32) {
    let mut polled: Vec<libc::pollfd> = connections
        .iter()
        .map(|connection| libc::pollfd {
            fd: connection.socket.as_raw_fd(),
            events: libc::POLLIN | if connection.output.is_empty() { 0 } else { libc::POLLOUT },
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the length describe one vector, which lives until the call returns.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
}

struct Connection<'a> {
    socket: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Headers of every call but the first. They refer to those of the first, which the server remembers.
    headers: Vec<u8>,
    first_headers: Option<Vec<u8>>,
    next_stream: u32,
    /// When each stream's call was due, and whether it has been answered with a message; by position of the stream.
    calls: Vec<(Instant, bool)>,
    under_way: usize,
    /// Most streams that the server allows at a time.
    max_streams: usize,
    /// Messages that wait for a free stream, and when their calls were due.
    waiting: VecDeque<(&'a [u8], Instant)>,
    unreported: u32,
}

impl<'a> Connection<'a> {
    fn open(args: &Args) -> io::Result<Self> {
        let mut socket = TcpStream::connect(&args.address)?;
        socket.set_nodelay(true)?;
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE, which holds for each stream.
        let mut settings = vec![0, 4];
        settings.extend(WINDOW.to_be_bytes());
        frame(&mut hello, SETTINGS, 0, 0, &settings);
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        socket.write_all(&hello)?;
        socket.set_nonblocking(true)?;
        let (first_headers, headers) = headers(args);
        Ok(Self {
            socket,
            output: Vec::new(),
            input: Vec::new(),
            headers,
            first_headers: Some(first_headers),
            next_stream: 1,
            calls: Vec::new(),
            under_way: 0,
            max_streams: STREAMS_AT_FIRST,
            waiting: VecDeque::new(),
            unreported: 0,
        })
    }

    fn unanswered(&self) -> usize {
        self.under_way + self.waiting.len()
    }

    /// Sends a call at once, or when a stream is free.
    fn call(&mut self, message: &'a [u8], due: Instant) {
        self.waiting.push_back((message, due));
        self.call_waiting();
    }

    fn call_waiting(&mut self) {
        while self.under_way < self.max_streams
            && let Some((message, due)) = self.waiting.pop_front()
        {
            self.open_stream(message, due);
        }
    }

    fn open_stream(&mut self, message: &[u8], due: Instant) {
        let stream = self.next_stream;
        self.next_stream += 2;
        match self.first_headers.take() {
            Some(headers) => frame(&mut self.output, HEADERS, END_HEADERS, stream, &headers),
            None => frame(&mut self.output, HEADERS, END_HEADERS, stream, &self.headers),
        }
        // The server's window, 1 MiB for all streams of a connection, is extended long before it is used up, so it is not
        // tracked here.
        frame(&mut self.output, DATA, END_STREAM, stream, message);
        self.calls.push((due, false));
        self.under_way += 1;
    }

    fn exchange(&mut self, latencies_ns: &mut Vec<u32>) -> io::Result<()> {
        self.send()?;
        let mut buffer = [0; 65_536];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.input.extend_from_slice(&buffer[..read]);
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while rest.len() >= FRAME_HEADER {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            if rest.len() < FRAME_HEADER + length {
                break;
            }
            let (frame, after) = rest.split_at(FRAME_HEADER + length);
            self.take(frame, now, latencies_ns);
            rest = after;
        }
        self.input = rest.to_vec();
        self.call_waiting();
        self.send()
    }

    fn take(&mut self, frame_bytes: &[u8], now: Instant, latencies_ns: &mut Vec<u32>) {
        let (header, payload) = frame_bytes.split_at(FRAME_HEADER);
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        match kind {
            DATA => {
                self.calls[stream as usize / 2].1 = true;
                self.unreported += payload.len() as u32;
                if self.unreported > WINDOW / 4 {
                    frame(&mut self.output, WINDOW_UPDATE, 0, 0, &self.unreported.to_be_bytes());
                    self.unreported = 0;
                }
            }
            HEADERS if flags & END_STREAM != 0 => {
                let (due, is_answered) = self.calls[stream as usize / 2];
                assert!(is_answered, "a call was answered with an error");
                latencies_ns.push(now.saturating_duration_since(due).as_nanos() as u32);
                self.under_way -= 1;
            }
            SETTINGS if flags & ACK == 0 => {
                if let Some(max_streams) = setting(payload, MAX_CONCURRENT_STREAMS) {
                    self.max_streams = max_streams as usize;
                }
                frame(&mut self.output, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(&mut self.output, PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => panic!("the server has ended a call or the connection: {payload:?}"),
            _ => {}
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match self.socket.write(&self.output) {
            Ok(sent) => drop(self.output.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Returns the last value for `id` in a SETTINGS frame.
fn setting(payload: &[u8], id: u16) -> Option<u32> {
    let (settings, _) = payload.as_chunks::<6>();
    let found = settings.iter().rfind(|setting| setting[..2] == id.to_be_bytes())?;
    Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    output.extend([kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
    output.extend_from_slice(payload);
}

/// Returns the headers of the first call and those of all others. The server remembers those of the first, as it does for
/// other clients, except the key.
///
/// Source: RFC 7541, 6.1 and 6.2.
fn headers(args: &Args) -> (Vec<u8>, Vec<u8>) {
    fn text(output: &mut Vec<u8>, text: &str) {
        assert!(text.len() < 127, "{text} is too long");
        output.push(text.len() as u8);
        output.extend_from_slice(text.as_bytes());
    }
    // `:method: POST` and `:scheme: http` of the static table.
    let mut first = vec![0x83, 0x86];
    let remembered = 0x40;
    for (name, value) in [(4, &*args.path), (1, &*args.address), (31, "application/grpc")] {
        first.push(remembered | name);
        text(&mut first, value);
    }
    first.push(remembered);
    text(&mut first, "te");
    text(&mut first, "trailers");
    // The header that was remembered last has the first index after the static table.
    let mut others = vec![0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
    if let Some(key) = &args.key {
        for headers in [&mut first, &mut others] {
            // `authorization` of the static table, marked as never to be remembered.
            headers.extend([0x1f, 23 - 15]);
            text(headers, &format!("Bearer {key}"));
        }
    }
    (first, others)
}
