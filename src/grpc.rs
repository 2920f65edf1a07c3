//! The gRPC server. Each service has one file of handlers and one of conversions. Requests are validated there, once, on
//! the way in; nothing below sees a protobuf type.

pub mod accept;
mod batch;
mod caller;
pub mod campaign;
pub mod catalog;
mod convert;
pub mod coupon;
mod cpu_pool;
mod demand;
pub mod encoded_rpc;
mod grpc_web;
pub mod health;
pub mod http;
mod import;
mod inventory;
mod layers;
mod message_size;
pub mod model;
pub mod options;
mod page;
mod peer;
pub mod privacy;
pub mod proto;
pub mod purchase;
pub mod rating;
pub mod recommendation;
mod request_limits;
mod routes;
mod row_stream;
pub mod server;
pub mod status;
pub mod threads;
pub mod tls;
