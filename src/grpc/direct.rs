//! The RPCs that are called most, beside the router, which takes as long as a short answer does. Their messages come and go
//! as bytes, so that an answer that is remembered is not made and encoded once more.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tower::{Layer, Service, service_fn};

use super::recommendation::RecommendationHandler;

pub const PREDICT_RATINGS: &str = "/likemind.v1.RecommendationService/PredictRatings";
pub const RECOMMEND: &str = "/likemind.v1.RecommendationService/Recommend";

#[derive(Clone)]
pub struct Direct {
    pub recommendation: Arc<RecommendationHandler>,
    pub max_message_bytes: usize,
}

impl<S> Layer<S> for Direct {
    type Service = Directed<S>;

    fn layer(&self, inner: S) -> Directed<S> {
        Directed {
            inner,
            direct: self.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Directed<S> {
    inner: S,
    direct: Direct,
}

impl<S> Service<Request<Body>> for Directed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let recommendation = self.direct.recommendation.clone();
        match request.uri().path() {
            PREDICT_RATINGS => Either::Left(self.direct.unary(request, move |message| {
                let recommendation = recommendation.clone();
                async move { recommendation.predict_ratings_encoded(message).await }
            })),
            RECOMMEND => Either::Left(self.direct.unary(request, move |message| {
                let recommendation = recommendation.clone();
                async move { recommendation.recommend_encoded(message).await }
            })),
            _ => Either::Right(self.inner.call(request)),
        }
    }
}

impl Direct {
    fn unary<A>(
        &self,
        request: Request<Body>,
        answer: impl Fn(Bytes) -> A + Send + 'static,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        A: Future<Output = Result<Bytes, Status>> + Send + 'static,
    {
        let mut grpc = Grpc::new(Encoded)
            .max_decoding_message_size(self.max_message_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let answer = service_fn(move |request: tonic::Request<Bytes>| {
            answer(request.into_inner()).map(|answer| answer.map(tonic::Response::new))
        });
        Box::pin(async move { Ok(grpc.unary(answer, request).await) })
    }
}

/// Leaves messages encoded as they are.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
