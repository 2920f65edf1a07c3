//! A server that has no file descriptor left for a new connection.

use std::net::TcpStream;

use likemind::grpc::proto::v1::GetServingStatusRequest;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use tonic::transport::Endpoint;

use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::waiting::eventually;

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
