//! `likemind call`: a small client for trying RPCs. It knows the messages from the descriptors that are compiled in.

mod client;
mod help;
mod message;
mod methods;
mod status;
mod tls;

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use prost_reflect::MethodDescriptor;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use self::client::CallOptions;
use self::message::RequestError;
use self::methods::{Methods, ResolveError};

pub use self::client::{Client, Refused};
pub use self::tls::TlsArgs;

#[derive(Debug, Clone, clap::Args)]
pub struct CallArgs {
    /// Recommend, RecommendationService/Recommend or likemind.v1.RecommendationService/Recommend;
    /// without it the RPCs are listed
    method: Option<String>,
    /// The request as JSON, `-` to read it from standard input; for a stream of requests several documents or an
    /// array [default: an empty request]
    request: Option<String>,
    /// Lists services, methods and the fields of their requests; with METHOD, that one in detail
    #[arg(long)]
    list: bool,
    /// Where the server is [default: server.listen of the configuration]
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// Gives up after so many milliseconds, and tells the server so
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,
    /// API key [default: the environment's LIKEMIND_API_KEY]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Metadata to send along; may be repeated
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// One piece of metadata.
#[derive(Debug, Clone)]
struct Header {
    key: MetadataKey<Ascii>,
    value: MetadataValue<Ascii>,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once(':').ok_or("must be KEY:VALUE")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        Ok(Self {
            key: key
                .parse()
                .map_err(|_| format!("{key} is not the name of text metadata"))?,
            value: value
                .parse()
                .map_err(|_| format!("the value of {key} must be visible ASCII"))?,
        })
    }
}

/// Holds the API key where no other is given.
pub const KEY_VARIABLE: &str = "LIKEMIND_API_KEY";

/// The metadata that says who calls.
fn authorization(key: &str) -> anyhow::Result<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .context("the API key must be visible ASCII")?;
    value.set_sensitive(true);
    Ok((MetadataKey::from_static("authorization"), value))
}

/// How a call ended that reached its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    Ok,
    /// The server, or the deadline, answered with an error, which has been printed.
    Status(tonic::Code),
    /// There is no such method, or it takes another request; which has been printed.
    Usage,
}

/// Calls, or lists; answers go to standard output, the status of a failed call to standard error.
///
/// # Errors
/// Nobody answers at the address.
pub async fn run(args: CallArgs, default_address: &str) -> anyhow::Result<CallOutcome> {
    let called = call(args, default_address, &mut io::stdout(), &mut io::stderr()).await;
    let is_unread = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match called {
        // Whoever reads the output, `head` say, has seen enough.
        Err(error) if error.downcast_ref().is_some_and(is_unread) => Ok(CallOutcome::Ok),
        Err(error) if error.is::<ResolveError>() || error.is::<RequestError>() => {
            eprintln!("error: {error:#}");
            Ok(CallOutcome::Usage)
        }
        called => called,
    }
}

/// The command that makes this call, for a shell; `program` is this one as the shell finds it.
pub fn command_line(program: &str, method: &str, request_json: &serde_json::Value, address: &str) -> String {
    let words = [program, "call", method, &request_json.to_string(), "--address", address];
    words.map(quoted).join(" ")
}

async fn call(
    args: CallArgs,
    default_address: &str,
    out: &mut (impl Write + Send),
    err: &mut (impl Write + Send),
) -> anyhow::Result<CallOutcome> {
    let methods = Methods::compiled_in()?;
    let Some(asked) = &args.method else {
        write!(out, "{}", help::overview(&methods))?;
        return Ok(CallOutcome::Ok);
    };
    let method = methods.resolve(asked)?;
    if args.list {
        write!(out, "{}", help::details(method))?;
        return Ok(CallOutcome::Ok);
    }
    let text = match args.request.as_deref() {
        Some("-") => read_stdin().await?,
        Some(text) => text.to_owned(),
        None => String::new(),
    };
    let requests = message::requests(method, &text)?;
    let mut headers: Vec<_> = args
        .headers
        .into_iter()
        .map(|header| (header.key, header.value))
        .collect();
    if let Some(key) = args.key.or_else(|| std::env::var(KEY_VARIABLE).ok()) {
        headers.push(authorization(&key)?);
    }
    let options = CallOptions {
        timeout: args.timeout_ms.map(Duration::from_millis),
        headers,
    };
    let address = args.address.as_deref().unwrap_or(default_address);
    let mut client = match options.timeout {
        Some(timeout) => tokio::time::timeout(timeout, Client::connect(address, &args.tls))
            .await
            .with_context(|| format!("no server answers at {address} within {timeout:?}"))??,
        None => Client::connect(address, &args.tls).await?,
    };
    let mut responses = match client.send(method, requests, options).await {
        Ok(responses) => responses,
        Err(status) => return failed(&status, err),
    };
    loop {
        match responses.next().await {
            Ok(Some(response)) => writeln!(out, "{}", as_text(method, &response)?)?,
            Ok(None) => return Ok(CallOutcome::Ok),
            Err(status) => return failed(&status, err),
        }
    }
}

async fn read_stdin() -> anyhow::Result<String> {
    tokio::task::spawn_blocking(|| io::read_to_string(io::stdin()))
        .await?
        .context("the request cannot be read from standard input")
}

/// One document; of a stream, one a line.
fn as_text(method: &MethodDescriptor, response: &prost_reflect::DynamicMessage) -> serde_json::Result<String> {
    match method.is_server_streaming() {
        true => message::to_line(response),
        false => message::to_pretty(response),
    }
}

fn failed(status: &tonic::Status, err: &mut impl Write) -> anyhow::Result<CallOutcome> {
    write!(err, "{}", status::render(status))?;
    Ok(CallOutcome::Status(status.code()))
}

/// As a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
