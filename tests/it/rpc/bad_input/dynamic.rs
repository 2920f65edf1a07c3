//! Calls of RPCs that are known only by their descriptors.

use std::collections::BTreeSet;

use http::uri::PathAndQuery;
use likemind::grpc::proto::DESCRIPTORS;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage, Value};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::cases::Change;

/// Returns all RPCs of Likemind.
pub fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours: Vec<_> = pool
        .services()
        .filter(|service| service.full_name().starts_with("likemind."))
        .collect();
    let methods: Vec<MethodDescriptor> = ours
        .iter()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    assert!(methods.len() >= 19, "only {} RPCs", methods.len());
    methods
}

/// Returns the name of an RPC with its service: `RatingService/ListRatings`.
pub fn method_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// Returns the paths at which a message can be wrong, ascending: fields, the fields within them (`ratings[].value`), and the
/// oneofs. A bool cannot be wrong.
pub fn paths(message: &MessageDescriptor) -> Vec<String> {
    fn add(message: &MessageDescriptor, above: &str, paths: &mut BTreeSet<String>) {
        let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
        paths.extend(oneofs.map(|oneof| format!("{above}{}", oneof.name())));
        for field in message.fields().filter(|field| field.kind() != Kind::Bool) {
            let path = format!("{above}{}", field.name());
            let element = if field.is_list() {
                format!("{path}[]")
            } else {
                path.clone()
            };
            paths.insert(path);
            // Its entries have names of their own.
            if field.is_map() {
                continue;
            }
            match field.kind() {
                Kind::Message(inner) => add(&inner, &format!("{element}."), paths),
                _ => {
                    paths.insert(element);
                }
            }
        }
    }
    let mut paths = BTreeSet::new();
    add(message, "", &mut paths);
    paths.into_iter().collect()
}

/// Returns a copy of the first of `requests` that has the message around `path`, changed at `path`.
pub fn changed(requests: &[DynamicMessage], path: &str, change: &Change) -> DynamicMessage {
    let with_parent = requests.iter().find(|request| has_parent(request, path));
    let mut request = with_parent.unwrap_or_else(|| panic!("no request has {path}")).clone();
    apply(&mut request, path, change);
    request
}

fn has_parent(message: &DynamicMessage, path: &str) -> bool {
    let (name, rest) = match path.split_once('.') {
        Some((first, rest)) => (first.trim_end_matches("[]"), Some(rest)),
        None => match path.strip_suffix("[]") {
            Some(list) => (list, None),
            None => return true,
        },
    };
    let value = message.get_field_by_name(name).unwrap();
    let inner = match &*value {
        Value::List(entries) => entries.first(),
        inner => message.has_field_by_name(name).then_some(inner),
    };
    inner.is_some_and(|inner| rest.is_none_or(|rest| has_parent(inner.as_message().unwrap(), rest)))
}

fn apply(message: &mut DynamicMessage, path: &str, change: &Change) {
    if let Some((first, rest)) = path.split_once('.') {
        let inner = match message.get_field_by_name_mut(first.trim_end_matches("[]")).unwrap() {
            Value::List(entries) => &mut entries[0],
            inner => inner,
        };
        return apply(inner.as_message_mut().unwrap(), rest, change);
    }
    if let Some(oneof) = message.descriptor().oneofs().find(|oneof| oneof.name() == path) {
        assert!(matches!(change, Change::Absent), "{path} has no value of its own");
        return oneof.fields().for_each(|field| message.clear_field(&field));
    }
    match (path.strip_suffix("[]"), change) {
        (None, Change::To(value)) => message.set_field_by_name(path, value.clone()),
        (None, Change::Absent) => message.clear_field_by_name(path),
        (None, Change::Times(count)) => {
            let list = message.get_field_by_name_mut(path).unwrap().as_list_mut().unwrap();
            *list = vec![list[0].clone(); *count];
        }
        (Some(list), Change::To(value)) => {
            message.get_field_by_name_mut(list).unwrap().as_list_mut().unwrap()[0] = value.clone();
        }
        (Some(_), Change::Absent | Change::Times(_)) => panic!("{path} is one entry"),
    }
}

/// A client that sends and receives messages by their descriptors, or as bytes.
pub struct DynamicClient {
    channel: Channel,
    authorization: Option<String>,
}

impl DynamicClient {
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            authorization: None,
        }
    }

    /// Returns the same client with this value of the `authorization` header.
    pub fn authorized(&self, authorization: impl Into<String>) -> Self {
        Self {
            channel: self.channel.clone(),
            authorization: Some(authorization.into()),
        }
    }

    /// Calls an RPC with one request, also where the RPC takes a stream of them.
    pub async fn call(&self, method: &MethodDescriptor, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
        let answer = self.call_raw(method, request.encode_to_vec()).await?;
        Ok(DynamicMessage::decode(method.output(), answer.as_slice()).unwrap())
    }

    pub async fn call_raw(&self, method: &MethodDescriptor, request: Vec<u8>) -> Result<Vec<u8>, Status> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        self.call_path(&path, request).await
    }

    pub async fn call_path(&self, path: &str, request: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(path).unwrap();
        let stream = tokio_stream::once(request);
        // On the wire a unary call is a stream of one message.
        let mut request = Request::new(stream);
        if let Some(authorization) = &self.authorization {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", authorization.parse().unwrap());
        }
        let answer = grpc.client_streaming(request, path, RawCodec).await?;
        Ok(answer.into_inner())
    }
}

/// Passes messages through as bytes.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
