//! More connections than the server can take.

use std::net::TcpStream;

use likemind::grpc::proto::v1::GetServingStatusRequest;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use tonic::transport::Endpoint;

use crate::postgres::TestDatabase;
use crate::program::{Server, eventually};

#[tokio::test]
async fn without_a_file_left_it_goes_on_and_takes_new_connections_when_it_can() {
    let database = TestDatabase::create().await;
    let mut server = Server::start(&database);
    let mut client = server.models().await;
    client.get_serving_status(GetServingStatusRequest {}).await.unwrap();

    let open_files = std::fs::read_dir(format!("/proc/{}/fd", server.program.id()))
        .unwrap()
        .count();
    limit_files(&server, open_files as u64 + 8);
    let address = server.address.trim_start_matches("http://");
    // What is not accepted waits in the queue of the listener.
    let connections: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.program.wait_for_log("connections cannot be accepted");
    for _ in 0..50 {
        client.get_serving_status(GetServingStatusRequest {}).await.unwrap();
    }

    drop(connections);
    eventually("a new client gets an answer", async || {
        let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
        let channel = endpoint.connect().await.ok()?;
        let mut client = ModelServiceClient::new(channel);
        client.get_serving_status(GetServingStatusRequest {}).await.ok()
    })
    .await;
    server.program.wait_for_log("connections are accepted again");
    // Said once each time, not at every attempt.
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
    // Safety: both structures live through the call, of which the second may be absent.
    assert_eq!(
        unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) },
        0
    );
}
