//! Code that `build.rs` generates from `proto/`.

pub mod v1 {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code; its documentation is the .proto files"
    )]
    // The messages and the clients, then the servers.
    tonic::include_proto!("likemind.v1");
    include!(concat!(env!("OUT_DIR"), "/server/likemind.v1.rs"));
}

/// All messages and services, encoded, for the reflection service and for `likemind call`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/likemind.bin"));
