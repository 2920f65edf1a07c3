//! A gRPC client whose messages are known only by their descriptors.

use std::time::Duration;

use anyhow::{Context, bail};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_types::StatusExt;

use super::methods::{Methods, path};
use super::tls::TlsArgs;
use super::{authorization, message, status};
use crate::grpc::status::REQUEST_ID;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one server.
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
    /// Metadata that is sent with every call of [`Self::unary`] and [`Self::stream`].
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

/// A call that the server refused or that failed on its way.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The reason in its ErrorInfo; empty without one.
    pub reason: String,
    /// The status with its details, in lines.
    text: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            reason: status
                .get_details_error_info()
                .map_or_else(String::new, |info| info.reason),
            text: status::render(&status).trim_end().to_owned(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct CallOptions {
    /// The deadline of the whole call.
    pub timeout: Option<Duration>,
    pub headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

impl Client {
    /// Connects to `http://host:port`, `https://host:port`, or `host:port`, which is plain text unless `tls` has options.
    ///
    /// # Errors
    /// Names the address if it is not valid or no server answers there, or the file of `tls` that cannot be used.
    pub async fn connect(address: &str, tls: &TlsArgs) -> anyhow::Result<Self> {
        let (url, is_secured) = match address.split_once("://") {
            Some(("https", _)) => (address.to_owned(), true),
            Some(("http", _)) if tls.is_given() => {
                bail!("{address} is plain text, but --ca, --client-cert and --client-key need https://")
            }
            Some(("http", _)) => (address.to_owned(), false),
            Some((scheme, _)) => bail!("{address} must begin with http:// or https://, not {scheme}://"),
            None if tls.is_given() => (format!("https://{address}"), true),
            None => (format!("http://{address}"), false),
        };
        let mut endpoint = Endpoint::from_shared(url).with_context(|| format!("{address} is not a valid address"))?;
        if is_secured {
            endpoint = endpoint
                .tls_config(tls.config()?)
                .context("TLS cannot be set up; name the authorities to trust with --ca FILE")?;
        }
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| match is_secured {
                false => format!("no server answers at {address}"),
                true => format!("no trusted server answers at {address}; name the authorities to trust with --ca FILE"),
            })?;
        let grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self {
            grpc,
            headers: Vec::new(),
        })
    }

    /// Sends this API key with every call.
    ///
    /// # Errors
    /// The key has other characters than visible ASCII.
    pub fn with_key(mut self, key: &str) -> anyhow::Result<Self> {
        self.headers.push(authorization(key)?);
        Ok(self)
    }

    /// Calls `method`, named as on the command line, with one request, and returns its answer.
    ///
    /// # Errors
    /// The method is unknown, the request does not fit it, or the call fails. A failed call is a [`Refused`].
    pub async fn unary(&mut self, method: &str, request: &Value) -> anyhow::Result<Value> {
        let methods = Methods::compiled_in()?;
        let method = methods.resolve(method)?;
        let request = message::message(&method.input(), request, "request")?;
        let response = self.one_response(method, request).await;
        Ok(message::to_value(&response.map_err(Refused::from)?)?)
    }

    /// Calls `method`, whose answers are a stream, and returns all of them.
    ///
    /// # Errors
    /// The same as [`Self::unary`].
    pub async fn stream(&mut self, method: &str, request: &Value) -> anyhow::Result<Vec<Value>> {
        let methods = Methods::compiled_in()?;
        let method = methods.resolve(method)?;
        let request = message::message(&method.input(), request, "request")?;
        let options = CallOptions {
            timeout: None,
            headers: self.headers.clone(),
        };
        let mut responses = self.send(method, vec![request], options).await.map_err(Refused::from)?;
        let mut answers = Vec::new();
        while let Some(response) = responses.next().await.map_err(Refused::from)? {
            answers.push(message::to_value(&response)?);
        }
        Ok(answers)
    }

    async fn one_response(
        &mut self,
        method: &MethodDescriptor,
        request: DynamicMessage,
    ) -> Result<DynamicMessage, Status> {
        let mut responses = self
            .send(
                method,
                vec![request],
                CallOptions {
                    timeout: None,
                    headers: self.headers.clone(),
                },
            )
            .await?;
        let response = responses.next().await?;
        // The status comes after the message.
        responses.next().await?;
        response.ok_or_else(|| Status::internal("the server sent no answer"))
    }

    /// Sends `requests` and returns the answers, one or many, as a stream.
    pub(super) async fn send(
        &mut self,
        method: &MethodDescriptor,
        requests: Vec<DynamicMessage>,
        options: CallOptions,
    ) -> Result<Responses, Status> {
        let deadline = Deadline::after(options.timeout);
        let mut request = Request::new(futures_util::stream::iter(requests));
        if let Some(timeout) = options.timeout {
            request.set_timeout(timeout);
        }
        for (key, value) in options.headers {
            request.metadata_mut().insert(key, value);
        }
        let path = PathAndQuery::try_from(format!("/{}", path(method)))
            .map_err(|_| Status::internal("the method has no path"))?;
        let codec = DynamicCodec {
            response: method.output(),
        };
        let call = async {
            let ready = self.grpc.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            self.grpc.streaming(request, path, codec).await
        };
        let (metadata, stream, _) = deadline.unless_over(call).await?.into_parts();
        Ok(Responses {
            stream,
            request_id: metadata.get(REQUEST_ID).cloned(),
            deadline,
        })
    }
}

/// The answers of one call.
pub(super) struct Responses {
    stream: Streaming<DynamicMessage>,
    /// The request id, which comes before the first answer. The status comes after the last.
    request_id: Option<MetadataValue<Ascii>>,
    deadline: Deadline,
}

impl Responses {
    pub async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        let next = self.deadline.unless_over(self.stream.message()).await;
        next.map_err(|mut status| {
            if let Some(id) = &self.request_id {
                status.metadata_mut().insert(REQUEST_ID, id.clone());
            }
            status
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Self {
            at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            timeout: timeout.unwrap_or(Duration::MAX),
        }
    }

    async fn unless_over<T>(self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Some(at) = self.at else { return work.await };
        tokio::select! {
            // The timer goes first, because tonic has the same timer and would answer CANCELLED.
            biased;
            () = sleep_until(at) => Err(Status::deadline_exceeded(format!("the call was not finished within {:?}", self.timeout))),
            result = work => result,
        }
    }
}

struct DynamicCodec {
    response: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder {
            message: self.response.clone(),
        }
    }
}

struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

struct DynamicDecoder {
    message: MessageDescriptor,
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.message.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
