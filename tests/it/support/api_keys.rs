//! API keys: making them with the command, and calling with one.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::postgres::TestDatabase;
use super::program::succeed;

/// Creates a key with `likemind keys create` and returns the whole of it.
pub fn create_key(database: &TestDatabase, args: &[&str]) -> String {
    let all = [&["keys", "create"], args].concat();
    succeed(database, &all).trim().to_owned()
}

/// Returns the public part of a key.
pub fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

/// Returns the secret part of a key.
pub fn secret_of(key: &str) -> &str {
    key.splitn(3, '_').nth(2).unwrap()
}

/// Returns the value of the `authorization` header.
pub fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// A channel whose calls carry a key, or none for a server that needs none.
pub type KeyedChannel = InterceptedService<Channel, WithKey>;

/// Adds a key, if there is one, to every call.
#[derive(Clone, Default)]
pub struct WithKey(Option<MetadataValue<Ascii>>);

impl WithKey {
    pub fn new(key: Option<&str>) -> Self {
        Self(key.map(|key| bearer(key).parse().unwrap()))
    }
}

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}
