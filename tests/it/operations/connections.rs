//! Connections: how many there may be, silent ones, a server without a file descriptor for a new one, and the age that one
//! may reach.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use likemind::grpc::proto::v1::GetServingStatusRequest;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::caller::Caller;
use crate::support::http2::RawConnection;
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::waiting::{PATIENCE, eventually};

#[tokio::test]
async fn without_free_file_descriptors_a_server_keeps_serving_and_accepts_again_later() {
    let database = TestDatabase::create().await;
    let mut server = Server::start(&database);
    let mut client = server.models().await;
    client.get_serving_status(GetServingStatusRequest {}).await.unwrap();

    let open_files = std::fs::read_dir(format!("/proc/{}/fd", server.program.id()))
        .unwrap()
        .count();
    limit_files(&server, open_files as u64 + 8);
    let address = server.address.trim_start_matches("http://");
    // Connections that are not accepted wait in the queue of the listener.
    let connections: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.program.wait_for_log("connections cannot be accepted");
    for _ in 0..50 {
        client.get_serving_status(GetServingStatusRequest {}).await.unwrap();
    }

    drop(connections);
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
    let look = async || {
        let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
        let mut client = ModelServiceClient::new(channel);
        let answer = client.get_serving_status(GetServingStatusRequest {}).await;
        answer.map_err(|status| format!("{status:?}"))
    };
    eventually("a new client gets an answer", look, Result::is_ok)
        .await
        .unwrap();
    server.program.wait_for_log("connections are accepted again");
    // The message is logged once each time, not at every attempt.
    let log = server.program.log();
    let count = |message: &str| log.matches(message).count();
    assert!(count("cannot be accepted") <= count("accepted again") + 1, "{log}");
}

#[tokio::test]
async fn an_old_connection_is_given_up_without_a_failed_call_and_its_stream_is_cut_off_after_a_grace_period() {
    let database = TestDatabase::create().await;
    let server = Server::with(
        &database,
        &[
            ("server.max_connection_age_ms", "200"),
            ("server.max_connection_age_grace_ms", "300"),
        ],
    );
    let started = Instant::now();
    let mut watch = HealthClient::new(server.channel().await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    // A client that keeps calling moves to a new connection, and none of its calls fails.
    let mut client = server.models().await;
    while started.elapsed() < Duration::from_secs(1) {
        client.get_serving_status(GetServingStatusRequest {}).await.unwrap();
    }
    // The stream has outlived the age of its connection and ends with the grace period.
    let end = timeout(PATIENCE, async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    });
    let end = end.await.expect("the stream outlives its connection");
    assert!(end.is_err(), "{end:?}");
    // So does an idle client.
    let mut idle = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut rest = Vec::new();
    match idle.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn socket_address(server: &Server) -> SocketAddr {
    server.address.trim_start_matches("http://").parse().unwrap()
}

/// Waits until the server closes `stream`.
fn read_to_end(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn silent_connections_lock_nobody_out_and_leave_the_database_its_descriptors() {
    let database = TestDatabase::create().await;
    let server = Server::started_as(database.url(), &[], |command| {
        // SAFETY: setrlimit is async-signal-safe and touches nothing of this process.
        unsafe {
            command.pre_exec(|| {
                let limit = libc::rlimit {
                    rlim_cur: 100,
                    rlim_max: 200,
                };
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
                Ok(())
            })
        }
    });
    let log = server.program.log();
    assert!(
        log.contains("room for fewer connections than server.max_connections"),
        "{log}"
    );
    assert!(log.contains("open_files=200"), "{log}");
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(socket_address(&server)).unwrap())
        .collect();
    // A new client and its writes to the database are served at once, and so are many calls to it.
    let caller = timeout(Duration::from_secs(5), Caller::of(&server))
        .await
        .expect("locked out");
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..40 {
        let caller = caller.clone();
        writes.spawn(async move { caller.rate(&format!("u{number}"), "i", 3.0).await });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
    let log = server.program.log();
    assert!(!log.contains("cannot be accepted"), "{log}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_begin_to_speak_is_closed() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[("server.handshake_timeout_ms", "200")]);
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(socket_address(&server)).unwrap();
        stream.write_all(begun).unwrap();
        read_to_end(stream);
    }
    // One that has begun lives on.
    let mut speaking = RawConnection::open(&server);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(600) {
        assert!(speaking.wait_until_read().is_none());
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_of_an_address_are_refused_and_other_addresses_are_served() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[("server.max_connections_per_address", "3")]);
    let serves = async || {
        let channel = Endpoint::from_shared(server.address.clone()).unwrap().connect().await;
        let channel = channel.map_err(|error| error.to_string())?;
        let mut client = ModelServiceClient::new(channel);
        let answer = client.get_serving_status(GetServingStatusRequest {}).await;
        answer.map(|_| client).map_err(|status| status.to_string())
    };
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(serves().await.unwrap());
    }
    serves().await.unwrap_err();
    // On Linux the whole network 127.0.0.0/8 is this machine.
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(socket_address(&server)).await.unwrap();
    other
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut answer = [0; 9];
    timeout(PATIENCE, other.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[3], 4, "no SETTINGS: {answer:?}");

    clients.pop();
    eventually("a new connection is accepted", serves, Result::is_ok)
        .await
        .unwrap();
}

fn limit_files(server: &Server, files: u64) {
    let limit = libc::rlimit {
        rlim_cur: files,
        rlim_max: files,
    };
    let pid = libc::pid_t::try_from(server.program.id()).unwrap();
    // SAFETY: the structure lives through the call; the second pointer may be null.
    assert_eq!(
        unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) },
        0
    );
}
