//! Configuration of TLS.

use std::path::PathBuf;

use domain::error::InvalidField;

/// Section `tls`. Without files the server speaks plain text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// PEM file with the server's certificate, followed by the intermediate ones.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's private key, not encrypted.
    pub key_file: Option<PathBuf>,
    /// PEM file with certificate authorities. Clients must present a certificate that one of them has signed.
    pub client_ca_file: Option<PathBuf>,
    /// How often the files are checked for a change.
    pub reload_interval_ms: u64,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            reload_interval_ms: 10_000,
        }
    }
}

impl TlsOptions {
    /// Whether connections use TLS.
    pub fn is_on(&self) -> bool {
        self.certificate_file.is_some()
    }

    /// Checks which keys are set. The files themselves are read when the server starts.
    ///
    /// # Errors
    /// Names the configuration key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let missing = |key, other| {
            let message = format!("must be set because {other} is set; without TLS leave out both");
            Err(InvalidField::new(key, "MISSING", message))
        };
        match (&self.certificate_file, &self.key_file, &self.client_ca_file) {
            (Some(_), None, _) => return missing("tls.key_file", "tls.certificate_file"),
            (None, Some(_), _) => return missing("tls.certificate_file", "tls.key_file"),
            (None, None, Some(_)) => return missing("tls.certificate_file", "tls.client_ca_file"),
            (Some(_), Some(_), _) | (None, None, None) => {}
        }
        if self.reload_interval_ms == 0 {
            return Err(InvalidField::new(
                "tls.reload_interval_ms",
                "OUT_OF_RANGE",
                "must be 1 or more, is 0",
            ));
        }
        Ok(())
    }
}
