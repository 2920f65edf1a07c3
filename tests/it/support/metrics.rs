//! Reading a server's metrics.

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::postgres::TestDatabase;
use super::program::Server;

/// Returns a port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts a server with metrics, and returns where they are served.
pub fn server_with_metrics(database: &TestDatabase, settings: &[(&str, &str)]) -> (Server, SocketAddr) {
    let address = free_port();
    let listen = address.to_string();
    let metrics = [("telemetry.metrics", "true"), ("telemetry.metrics_listen", &*listen)];
    let server = Server::with(database, &[&metrics, settings].concat());
    (server, address)
}

/// Returns the text of `/metrics`.
pub async fn scrape(address: SocketAddr) -> String {
    let (status, answer) = get(address, "/metrics").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Returns the status and the text of the answer for `path`.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap();
    (status.parse().unwrap(), answer)
}

/// Returns the value of the series `name`, with its labels, in `text`.
pub fn value(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '))?;
    line.rsplit(' ').next()?.parse().ok()
}
