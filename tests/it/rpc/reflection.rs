//! The reflection service, from which clients without generated code learn the messages.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::postgres::TestDatabase;
use crate::support::program::Server;

async fn ask(client: &mut ServerReflectionClient<Channel>, asked: MessageRequest) -> Vec<FileDescriptorProto> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(asked.clone()),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::FileDescriptorResponse(found)) = answer else {
        panic!("{asked:?}: {answer:?}");
    };
    let file = |bytes: &Vec<u8>| FileDescriptorProto::decode(bytes.as_slice()).unwrap();
    found.file_descriptor_proto.iter().map(file).collect()
}

/// Learns the file of `symbol` and all files that it imports, as grpcurl does.
async fn learn(client: &mut ServerReflectionClient<Channel>, symbol: &str) -> DescriptorPool {
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut found = ask(client, MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
    while let Some(file) = found.pop() {
        for imported in &file.dependency {
            if !files.contains_key(imported) {
                found.extend(ask(client, MessageRequest::FileByFilename(imported.clone())).await);
            }
        }
        files.insert(file.name().to_owned(), file);
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(files.into_values()).unwrap();
    pool
}

#[tokio::test]
async fn the_types_of_error_details_are_described() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let mut client = ServerReflectionClient::new(server.channel().await);
    for name in [
        "google.rpc.Status",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.rpc.RetryInfo",
        "likemind.v1.RecommendRequest",
    ] {
        let pool = learn(&mut client, name).await;
        assert!(pool.get_message_by_name(name).is_some(), "{name}");
    }
}
