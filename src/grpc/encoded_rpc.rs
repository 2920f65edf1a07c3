//! RPCs whose handlers take and return encoded messages.
//!
//! PredictRatings and Recommend remember their answers as bytes. Their handlers get a request as [`Encoded`], look it up
//! by its bytes, and return a remembered answer as it is, so that it is not decoded and encoded again. All other handlers
//! get messages. `build.rs` generates every server with [`WireCodec`], which knows from a message's type which of the two
//! it is.

use std::marker::PhantomData;

use prost::bytes::{Buf, BufMut, Bytes};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::request_limits::{self, Bounded};
use super::status::invalid_argument;

/// The bytes of a message of type `M`. A request may turn out to be no such message when it is decoded.
#[derive(Debug, Clone)]
pub struct Encoded<M> {
    bytes: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default + Bounded> Encoded<M> {
    pub fn new(message: &M) -> Self {
        Self::from_bytes(message.encode_to_vec().into())
    }

    /// `bytes`: an encoded `M`.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            bytes,
            message: PhantomData,
        }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// # Errors
    /// The same status as for a message that the codec cannot decode, or INVALID_ARGUMENT for one with too many entries.
    pub fn decode(&self) -> Result<M, Status> {
        within_limits::<M>(&self.bytes)?;
        M::decode(self.bytes.clone()).map_err(undecodable)
    }
}

/// # Errors
/// INVALID_ARGUMENT naming a field with too many entries.
fn within_limits<M: Bounded>(bytes: &[u8]) -> Result<(), Status> {
    request_limits::check::<M>(bytes).map_err(|error| invalid_argument(vec![error]))
}

/// Returns the status that tonic's own codec answers with. `status::with_details` makes INVALID_ARGUMENT of it.
fn undecodable(error: DecodeError) -> Status {
    Status::internal(error.to_string())
}

/// A request or response of an RPC: a message, or its bytes.
pub trait WireMessage: Sized + Send + 'static {
    /// # Errors
    /// INTERNAL for bytes that are not such a message; INVALID_ARGUMENT for one with too many entries, which is not decoded.
    fn read(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status>;

    /// # Errors
    /// INTERNAL when `buffer` has no room, which cannot happen because it grows.
    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status>;
}

impl<M: Message + Default + Bounded + 'static> WireMessage for M {
    fn read(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        // The whole message lies in one piece.
        within_limits::<M>(buffer.chunk())?;
        M::decode(buffer).map_err(undecodable)
    }

    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<M: Send + 'static> WireMessage for Encoded<M> {
    fn read(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Ok(Self {
            bytes: buffer.copy_to_bytes(buffer.remaining()),
            message: PhantomData,
        })
    }

    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(self.bytes);
        Ok(())
    }
}

/// The codec of every server: decodes requests of type `D` and encodes responses of type `E`.
pub struct WireCodec<E, D> {
    messages: PhantomData<fn(E) -> D>,
}

impl<E, D> Default for WireCodec<E, D> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<E: WireMessage, D: WireMessage> Codec for WireCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: WireMessage, D: WireMessage> Encoder for WireCodec<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.write(buffer)
    }
}

impl<E: WireMessage, D: WireMessage> Decoder for WireCodec<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::read(buffer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::v1::GetSnapshotRequest;

    #[test]
    fn an_encoded_message_decodes_to_itself() {
        let message = GetSnapshotRequest { version: 7 };
        let encoded = Encoded::new(&message);
        assert_eq!(encoded.bytes().as_ref(), [8, 7]);
        assert_eq!(encoded.decode().unwrap(), message);
    }

    #[test]
    fn bytes_of_no_message_are_refused() {
        let encoded = Encoded::<GetSnapshotRequest>::from_bytes(Bytes::from_static(&[0xff]));
        let status = encoded.decode().unwrap_err();
        assert!(
            status.message().starts_with("failed to decode Protobuf message"),
            "{status:?}"
        );
    }
}
