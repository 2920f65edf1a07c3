//! Connections: a server without a file descriptor for a new one, and the age that one may reach.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use likemind::grpc::proto::v1::GetServingStatusRequest;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

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
