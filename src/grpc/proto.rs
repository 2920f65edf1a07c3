//! Generated from `proto/`.

pub mod v1 {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        reason = "generated code; its documentation is the .proto files"
    )]
    tonic::include_proto!("likemind.v1");
}

/// All messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/likemind.bin"));
