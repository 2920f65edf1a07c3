//! Calls the server and finds values in its answers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::call::{Client, Refused, TlsArgs};

const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
const LOAD_POLL: Duration = Duration::from_millis(50);

/// A client of the running server.
pub(super) struct Demo {
    client: Client,
}

impl Demo {
    pub(super) async fn connect(address: &str, key: &str) -> anyhow::Result<Self> {
        let client = Client::connect(address, &TlsArgs::default()).await?.with_key(key)?;
        Ok(Self { client })
    }

    /// Waits until the server has loaded the snapshot, because a server may answer before.
    ///
    /// # Errors
    /// The snapshot cannot be loaded, or not within [`LOAD_TIMEOUT`].
    pub(super) async fn wait_for_snapshot(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LOAD_TIMEOUT;
        loop {
            let status = self.ask("ModelService/GetServingStatus", &json!({})).await?;
            match (number(&status["snapshot_version"]) > 0.0, text(&status["load_error"])) {
                (true, _) => return Ok(()),
                (false, "") if Instant::now() < deadline => tokio::time::sleep(LOAD_POLL).await,
                (false, "") => bail!("the snapshot was not loaded within {LOAD_TIMEOUT:?}"),
                (false, error) => bail!("the snapshot cannot be loaded: {error}"),
            }
        }
    }

    pub(super) async fn ask(&mut self, method: &str, request: &Value) -> anyhow::Result<Value> {
        let answer = self.client.unary(method, request).await;
        answer.with_context(|| format!("{method} failed"))
    }

    /// Calls a method. Returns `None` if the server refuses for `reason`.
    pub(super) async fn ask_unless(
        &mut self,
        reason: &str,
        method: &str,
        request: &Value,
    ) -> anyhow::Result<Option<Value>> {
        unless(reason, self.ask(method, request).await)
    }

    /// Calls a method whose answers are a stream. Returns `None` if the server refuses for `reason`.
    pub(super) async fn stream_unless(
        &mut self,
        reason: &str,
        method: &str,
        request: &Value,
    ) -> anyhow::Result<Option<Vec<Value>>> {
        unless(reason, self.stream(method, request).await)
    }

    /// Calls a method whose answers are a stream and returns all of them.
    pub(super) async fn stream(&mut self, method: &str, request: &Value) -> anyhow::Result<Vec<Value>> {
        let answers = self.client.stream(method, request).await;
        answers.with_context(|| format!("{method} failed"))
    }
}

fn unless<T>(reason: &str, answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match answer {
        Err(error)
            if error
                .downcast_ref::<Refused>()
                .is_some_and(|refused| refused.reason == reason) =>
        {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// Returns title and id of an item, or its id alone.
pub(super) fn named(item: &Value) -> String {
    let id = item["item_id"].as_str().unwrap_or_default();
    match item["title"].as_str() {
        Some(title) if !title.is_empty() => format!("{title} ({id})"),
        _ => id.to_owned(),
    }
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a number of an answer, or 0 if the answer leaves it out.
pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Returns a text of an answer, or an empty one if the answer leaves it out.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
