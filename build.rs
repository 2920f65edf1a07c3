//! Compiles `proto/` without `protoc`: protox parses, tonic-prost-build generates.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 9] = [
    "likemind/v1/common.proto",
    "likemind/v1/catalog.proto",
    "likemind/v1/rating.proto",
    "likemind/v1/purchase.proto",
    "likemind/v1/recommendation.proto",
    "likemind/v1/model.proto",
    "likemind/v1/campaign.proto",
    "likemind/v1/coupon.proto",
    "likemind/v1/privacy.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // For the reflection service and for `likemind call`.
    std::fs::write(out_dir.join("likemind.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
