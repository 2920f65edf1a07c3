//! Compiles `proto/` without `protoc`: protox parses, tonic-prost-build generates. Four things come out of it:
//!
//! - the messages, the clients and the servers (`src/grpc/proto.rs`),
//! - the descriptors, for the reflection service and for `likemind call`,
//! - the table of the RPCs with who may call them (`src/admission/rpc.rs`), from the option `access` of each,
//! - the limits on the entries of requests (`src/grpc/request_limits.rs`), from the option `max_entries` of their fields.

#[path = "build/request_limits.rs"]
mod request_limits;

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use protox::prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, ReflectMessage};

const PROTOS: [&str; 13] = [
    "likemind/v1/access.proto",
    "likemind/v1/common.proto",
    "likemind/v1/catalog.proto",
    "likemind/v1/rating.proto",
    "likemind/v1/purchase.proto",
    "likemind/v1/recommendation.proto",
    "likemind/v1/model.proto",
    "likemind/v1/campaign.proto",
    "likemind/v1/coupon.proto",
    "likemind/v1/privacy.proto",
    "likemind/v1/demand.proto",
    "likemind/v1/inventory.proto",
    "likemind/v1/import.proto",
];

/// The messages that the server's handlers take and return encoded (`src/grpc/encoded_rpc.rs`).
const ENCODED: [&str; 5] = [
    "PredictRatingsRequest",
    "PredictRatingsResponse",
    "RecommendRequest",
    "RecommendResponse",
    "ListSimilarItemsRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(PROTOS)?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // protox encodes the set itself because the types of prost would lose the option `access`.
    std::fs::write(out_dir.join("likemind.bin"), compiler.encode_file_descriptor_set())?;
    std::fs::write(out_dir.join("rpcs.rs"), rpc_table(&compiler.descriptor_pool())?)?;
    let limits = request_limits::table(&compiler.descriptor_pool())?;
    std::fs::write(out_dir.join("request_limits.rs"), limits)?;

    let descriptors = compiler.file_descriptor_set();
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors.clone())?;
    let server_dir = out_dir.join("server");
    std::fs::create_dir_all(&server_dir)?;
    configure_servers(&server_dir).compile_fds(descriptors)?;
    Ok(())
}

/// The servers use the messages that were generated with the clients. Their codec leaves the messages of [`ENCODED`] as
/// bytes.
fn configure_servers(out_dir: &Path) -> tonic_prost_build::Builder {
    let servers = tonic_prost_build::configure()
        .build_client(false)
        .out_dir(out_dir)
        .codec_path("crate::grpc::encoded_rpc::WireCodec")
        .extern_path(".likemind.v1", "crate::grpc::proto::v1");
    ENCODED.into_iter().fold(servers, |servers, message| {
        let encoded = format!("crate::grpc::encoded_rpc::Encoded<crate::grpc::proto::v1::{message}>");
        servers.extern_path(format!(".likemind.v1.{message}"), encoded)
    })
}

/// Returns Rust code for the array of all declared RPCs.
fn rpc_table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let access = pool
        .get_extension_by_name("likemind.v1.access")
        .ok_or("access.proto does not define the option likemind.v1.access")?;
    let methods: Vec<MethodDescriptor> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    let mut table = format!("const DECLARED: [Declared; {}] = [\n", methods.len());
    for method in &methods {
        let name = format!("{}/{}", method.parent_service().full_name(), method.name());
        let rule = rule(method, &access).map_err(|problem| format!("{name}: {problem}"))?;
        writeln!(table, "    Declared {{ name: \"{name}\", {rule} }},")?;
    }
    table.push_str("];\n");
    Ok(table)
}

/// Returns the fields of an RPC's row.
fn rule(method: &MethodDescriptor, access: &ExtensionDescriptor) -> Result<String, String> {
    let options = method.options();
    let access = options.get_extension(access);
    let access = access.as_message().ok_or("the option access is not a message")?;
    let roles: Vec<String> = enum_values(access, "roles")?
        .iter()
        .map(|name| format!("Role::{}", variant(name, "ROLE_")))
        .collect();
    if roles.is_empty() {
        return Err("the option access must name the roles that may call the RPC".to_owned());
    }
    let source = enum_values(access, "source")?.concat();
    let is_stream = method.is_client_streaming() || method.is_server_streaming();
    let work = match (is_stream, source.as_str()) {
        (true, "SOURCE_UNSPECIFIED") if method.is_client_streaming() => "Ingest".to_owned(),
        (true, "SOURCE_UNSPECIFIED") => "Stream".to_owned(),
        (true, _) => return Err("the option access must not have a source for a stream".to_owned()),
        (false, "SOURCE_UNSPECIFIED") => return Err("the option access must have a source".to_owned()),
        (false, source) => variant(source, "SOURCE_"),
    };
    let bytes = max_request_bytes(access, method)?;
    Ok(format!(
        "work: Work::{work}, roles: &[{}], max_request_bytes: {bytes}",
        roles.join(", ")
    ))
}

/// Returns the size of the largest request message, in bytes.
fn max_request_bytes(access: &DynamicMessage, method: &MethodDescriptor) -> Result<i32, String> {
    const DEFAULT_KIB: i32 = 64;
    const DEFAULT_KIB_WITH_ENTRIES: i32 = 4_096;
    let kib = access
        .get_field_by_name("max_request_kib")
        .and_then(|value| value.as_i32())
        .ok_or("the option access has no number max_request_kib")?;
    let has_entries = method.is_client_streaming() || request_limits::has_entries(&method.input());
    match kib {
        0 if has_entries => Ok(DEFAULT_KIB_WITH_ENTRIES * 1_024),
        0 => Ok(DEFAULT_KIB * 1_024),
        1..=65_536 => Ok(kib * 1_024),
        _ => Err(format!("max_request_kib must be 0 to 65536, is {kib}")),
    }
}

/// Returns the names of the values of an enum field, repeated or not.
fn enum_values(message: &DynamicMessage, field: &str) -> Result<Vec<String>, String> {
    let descriptor = message.descriptor();
    let field = descriptor
        .get_field_by_name(field)
        .ok_or_else(|| format!("the option access has no field {field}"))?;
    let kind = field.kind();
    let values = kind
        .as_enum()
        .ok_or_else(|| format!("the field {} is not an enum", field.name()))?;
    let value = message.get_field(&field);
    let numbers = match value.as_list() {
        Some(list) => list.iter().filter_map(|value| value.as_enum_number()).collect(),
        None => Vec::from_iter(value.as_enum_number()),
    };
    let name = |number: i32| match values.get_value(number) {
        Some(value) => Ok(value.name().to_owned()),
        None => Err(format!("{number} is not a value of the field {}", field.name())),
    };
    numbers.into_iter().map(name).collect()
}

/// `ROLE_SERVICE` becomes `Service`.
fn variant(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    let (first, rest) = word.split_at(1);
    first.to_owned() + &rest.to_lowercase()
}
