//! The TLS options of the client: the authorities that it trusts and its own certificate.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Certificate authorities to trust for the server, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to present to the server, PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

impl TlsArgs {
    /// Returns whether any option is given. The options make sense only with `https://`.
    pub(super) fn is_given(&self) -> bool {
        self.ca.is_some() || self.client_cert.is_some()
    }

    pub(super) fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        let mut config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca", ca)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            let (certificate, key) = (read("--client-cert", certificate)?, read("--client-key", key)?);
            config = config.identity(Identity::from_pem(certificate, key));
        }
        Ok(config)
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} ({flag}) cannot be read", path.display()))
}
