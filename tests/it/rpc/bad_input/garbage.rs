//! Sends random bytes to the port for a minute:
//! `cargo test --test it garbage -- --ignored --nocapture`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cases::valid_requests;
use super::dynamic::{DynamicClient, method_name, methods};
use super::{assert_serves, serve};

use crate::support::program::Server;
use crate::support::waiting::eventually;

const EACH: Duration = Duration::from_secs(15);
const CLIENTS: u64 = 8;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length 0, type SETTINGS, no flags, stream 0.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// SplitMix64, which gives the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// Returns an HTTP/2 frame whose length is right and whose type mostly exists.
    fn frame(&mut self) -> Vec<u8> {
        let payload = self.bytes(300);
        let length = (payload.len() as u32).to_be_bytes();
        let kind = self.below(12) as u8;
        let stream = (self.below(6) as u32).to_be_bytes();
        let head = [&length[1..], &[kind, self.next() as u8], &stream].concat();
        [head, payload].concat()
    }

    /// Returns `bytes` with a few of them changed, removed or repeated.
    fn distort(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = self.next() as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    }
}

/// Sends `bytes` over a new connection, and reads for at most 20 ms.
async fn send(address: &str, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return;
    };
    // The server may close the connection in the middle.
    let _ = stream.write_all(bytes).await;
    let mut answer = [0; 1_024];
    let _ = timeout(Duration::from_millis(20), stream.read(&mut answer)).await;
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Bytes that are not HTTP.
    Bytes,
    /// Random frames after the preface of HTTP/2.
    Frames,
    /// gRPC messages of random bytes.
    Messages,
    /// Distorted valid gRPC messages.
    DistortedMessages,
}

async fn send_random(server: &Server, kind: Kind) {
    let (requests, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let deadline = Instant::now() + EACH;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (requests, bytes) = (requests.clone(), bytes.clone());
        let address = server.address.trim_start_matches("http://").to_owned();
        let caller = DynamicClient::new(server.channel().await);
        let mut random = Random(client << 8 | kind as u64);
        clients.spawn(async move {
            let methods = methods();
            while Instant::now() < deadline {
                let method = &methods[random.below(methods.len())];
                let sent = match kind {
                    Kind::Bytes => random.bytes(2_000),
                    Kind::Frames => {
                        let frames: Vec<u8> = (0..random.below(20)).flat_map(|_| random.frame()).collect();
                        [PREFACE, &SETTINGS, &frames].concat()
                    }
                    Kind::Messages => random.bytes(500),
                    Kind::DistortedMessages => {
                        let valid = valid_requests(&method_name(method), &method.input());
                        let chosen = random.below(valid.len());
                        random.distort(valid[chosen].encode_to_vec())
                    }
                };
                requests.fetch_add(1, Ordering::Relaxed);
                bytes.fetch_add(sent.len() as u64, Ordering::Relaxed);
                match kind {
                    Kind::Bytes | Kind::Frames => send(&address, &sent).await,
                    Kind::Messages | Kind::DistortedMessages => {
                        let answer = caller.call_raw(method, sent).await;
                        let code = answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok);
                        let ours = [tonic::Code::Internal, tonic::Code::Unknown, tonic::Code::Unavailable];
                        assert!(!ours.contains(&code), "{}: {code:?}", method_name(method));
                    }
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    println!(
        "{kind:?}: {} requests, {} bytes; {} kB in memory, {} files open",
        requests.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed),
        resident_kb(server),
        open_files(server),
    );
}

fn resident_kb(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.program.id()))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn random_bytes_neither_stop_a_server_nor_grow_its_memory() {
    let (_database, server) = serve().await;
    assert_serves(&server).await;
    let (memory, files) = (resident_kb(&server), open_files(&server));
    println!("before: {memory} kB in memory, {files} files open");
    for kind in [Kind::Bytes, Kind::Frames, Kind::Messages, Kind::DistortedMessages] {
        send_random(&server, kind).await;
        assert_serves(&server).await;
    }
    // Only the pool of database connections may have grown.
    let look = async || open_files(&server);
    eventually("the connections are closed", look, |&open| open <= files + 16).await;
    let after = resident_kb(&server);
    println!("after: {after} kB in memory, {} files open", open_files(&server));
    assert!(after < memory + 64 * 1_024, "{memory} kB became {after} kB");
}
