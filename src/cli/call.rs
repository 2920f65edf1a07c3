//! `likemind call`: a small client for trying RPCs. It reads the messages from the compiled-in descriptors.

mod client;
mod help;
mod message;
mod methods;
mod status;
mod tls;

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use prost_reflect::MethodDescriptor;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use self::client::CallOptions;
use self::message::RequestError;
use self::methods::{Methods, ResolveError};
use super::secret;

pub use self::client::{Client, Refused};
pub use self::tls::TlsArgs;

#[derive(Debug, Clone, clap::Args)]
pub struct CallArgs {
    /// The RPC: Recommend, RecommendationService/Recommend or likemind.v1.RecommendationService/Recommend
    /// [default: list all RPCs]
    method: Option<String>,
    /// The request as JSON, or - to read it from standard input; for a stream of requests several documents or an array
    /// [default: an empty request]
    request: Option<String>,
    /// List the services, their RPCs and the fields of the requests; with METHOD, show that RPC in detail
    #[arg(long)]
    list: bool,
    /// Address of the server [default: server.listen of the configuration]
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// Deadline of the call in milliseconds, which the server is told
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,
    /// API key [default: the environment variable LIKEMIND_API_KEY]. Every user of this machine can read the arguments of a
    /// running command: prefer the variable or --key-file
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// File that holds the API key, or - to read it from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// Metadata to send with the call; may be repeated
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// One entry of metadata.
#[derive(Debug, Clone)]
struct Header {
    key: MetadataKey<Ascii>,
    value: MetadataValue<Ascii>,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once(':')
            .ok_or("must be KEY:VALUE, for example x-request-id:7")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        Ok(Self {
            key: key
                .parse()
                .map_err(|_| format!("{key} is not a valid name for text metadata"))?,
            value: value
                .parse()
                .map_err(|_| format!("the value of {key} must consist of visible ASCII characters"))?,
        })
    }
}

/// The environment variable with the API key, used if no key is given.
pub const KEY_VARIABLE: &str = "LIKEMIND_API_KEY";

/// Returns the metadata that authenticates the caller.
fn authorization(key: &str) -> anyhow::Result<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .context("the API key must consist of visible ASCII characters")?;
    value.set_sensitive(true);
    Ok((MetadataKey::from_static("authorization"), value))
}

/// How a call ended, unless the server could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    Ok,
    /// The call failed with this status, which has been printed. The server sent it, or the deadline passed.
    Status(tonic::Code),
    /// The method is unknown or the request does not fit it; the error has been printed.
    Usage,
}

/// Calls an RPC or lists the RPCs. Answers go to standard output, the status of a failed call to standard error.
///
/// # Errors
/// No server answers at the address.
pub async fn run(args: CallArgs, default_address: &str) -> anyhow::Result<CallOutcome> {
    let called = call(args, default_address, &mut io::stdout(), &mut io::stderr()).await;
    let is_unread = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match called {
        // The reader has closed the pipe, as `head` does, and needs no more.
        Err(error) if error.downcast_ref().is_some_and(is_unread) => Ok(CallOutcome::Ok),
        Err(error) if error.is::<ResolveError>() || error.is::<RequestError>() => {
            eprintln!("error: {error:#}");
            Ok(CallOutcome::Usage)
        }
        called => called,
    }
}

/// Returns a shell command that makes this call. `program` is the path of this program for the shell.
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
    let Some(name) = &args.method else {
        write!(out, "{}", help::overview(&methods))?;
        return Ok(CallOutcome::Ok);
    };
    let method = methods.resolve(name)?;
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
    let address = args.address.as_deref().unwrap_or(default_address);
    let options = args.options()?;
    let mut client = connect(address, &args.tls, options.timeout).await?;
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

impl CallArgs {
    fn options(&self) -> anyhow::Result<CallOptions> {
        let headers = self.headers.iter().cloned();
        let mut headers: Vec<_> = headers.map(|header| (header.key, header.value)).collect();
        let key = match &self.key_file {
            Some(file) => Some(secret::read(file).context("--key-file")?),
            None => self.key.clone().or_else(|| std::env::var(KEY_VARIABLE).ok()),
        };
        if let Some(key) = key {
            headers.push(authorization(&key)?);
        }
        Ok(CallOptions {
            timeout: self.timeout_ms.map(Duration::from_millis),
            headers,
        })
    }
}

async fn connect(address: &str, tls: &TlsArgs, timeout: Option<Duration>) -> anyhow::Result<Client> {
    let connect = Client::connect(address, tls);
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, connect)
            .await
            .with_context(|| format!("no server answers at {address} within {timeout:?}"))?,
        None => connect.await,
    }
}

async fn read_stdin() -> anyhow::Result<String> {
    tokio::task::spawn_blocking(|| io::read_to_string(io::stdin()))
        .await?
        .context("the request cannot be read from standard input")
}

/// Formats a response as an indented document, or as one line if the responses are a stream.
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

/// Quotes a word for a POSIX shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
