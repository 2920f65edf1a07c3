//! Reads PEM files and makes of them what a handshake needs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, CertificateError, InconsistentKeys, RootCertStore, ServerConfig};

use super::options::TlsOptions;

/// The protocols that clients may choose from, with and without HTTP/1.1.
const HTTP2: [&[u8]; 1] = [b"h2"];
const HTTP2_AND_1: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} ({key}) cannot be read", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} ({key}) is not PEM", path.display())]
    Pem {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{} ({key}) holds no certificate in PEM", path.display())]
    NoCertificate { key: &'static str, path: PathBuf },
    /// It has no source because the source may quote the file.
    #[error("{} ({key}) holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted)", path.display())]
    NoPrivateKey { key: &'static str, path: PathBuf },
    #[error("{} ({key}) cannot be used", path.display())]
    Unusable {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error(
        "the private key {} (tls.key_file) does not belong to the certificate {} (tls.certificate_file)",
        private_key.display(),
        certificate.display()
    )]
    Mismatch { certificate: PathBuf, private_key: PathBuf },
    #[error("{} ({key}) holds no usable certificate authority", path.display())]
    Authorities {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
}

/// The contents of the files. There is no `Debug` because one of them is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFiles {
    certificate: PemFile,
    private_key: PemFile,
    client_ca: Option<PemFile>,
    has_http1: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct PemFile {
    /// The configuration key that names the file.
    key: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl TlsFiles {
    /// Returns `None` when TLS is off. `has_http1`: whether clients may choose HTTP/1.1.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub fn read(options: &TlsOptions, has_http1: bool) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(private_key)) = (&options.certificate_file, &options.key_file) else {
            return Ok(None);
        };
        let client_ca = options.client_ca_file.as_deref();
        Ok(Some(Self {
            certificate: PemFile::read("tls.certificate_file", certificate)?,
            private_key: PemFile::read("tls.key_file", private_key)?,
            client_ca: client_ca
                .map(|path| PemFile::read("tls.client_ca_file", path))
                .transpose()?,
            has_http1,
        }))
    }

    /// Reads the same files again.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub fn read_again(&self) -> Result<Self, TlsError> {
        let read = |file: &PemFile| PemFile::read(file.key, &file.path);
        Ok(Self {
            certificate: read(&self.certificate)?,
            private_key: read(&self.private_key)?,
            client_ca: self.client_ca.as_ref().map(read).transpose()?,
            has_http1: self.has_http1,
        })
    }

    /// # Errors
    /// Names the configuration key and the path of a file that cannot be used.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let identity = self.identity(&provider)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.certificate.unusable(source))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(file.authorities()?.into(), provider)
                    .build()
                    .map_err(|source| TlsError::Authorities {
                        key: file.key,
                        path: file.path.clone(),
                        source,
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        let protocols = match self.has_http1 {
            true => &HTTP2_AND_1[..],
            false => &HTTP2,
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    fn identity(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = self.certificate.certificates()?;
        self.check_validity(&chain, provider)?;
        let private_key = provider
            .key_provider
            .load_private_key(self.private_key.private_key()?)
            .map_err(|source| self.private_key.unusable(source))?;
        let identity = CertifiedKey::new(chain, private_key);
        match identity.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
                certificate: self.certificate.path.clone(),
                private_key: self.private_key.path.clone(),
            }),
            Err(source) => Err(self.certificate.unusable(source)),
        }
    }

    /// Refuses a certificate that has expired or is not valid yet, because every client would.
    ///
    /// The authorities that clients trust are not known here, so that only the verification's verdict on time counts. The
    /// verification checks the time before the issuer.
    fn check_validity(&self, chain: &[CertificateDer<'static>], provider: &CryptoProvider) -> Result<(), TlsError> {
        let unusable = |source| self.certificate.unusable(source);
        let [server, between @ ..] = chain else {
            return Err(self.certificate.no_certificate());
        };
        let mut roots = RootCertStore::empty();
        roots.add(server.clone()).map_err(unusable)?;
        let parsed = ParsedCertificate::try_from(server).map_err(unusable)?;
        let algorithms = provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, UnixTime::now(), algorithms) {
            Err(rustls::Error::InvalidCertificate(
                error @ (CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }),
            )) => Err(unusable(error.into())),
            _ => Ok(()),
        }
    }
}

impl PemFile {
    fn read(key: &'static str, path: &Path) -> Result<Self, TlsError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self {
                key,
                path: path.to_owned(),
                bytes,
            }),
            Err(source) => Err(TlsError::Read {
                key,
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Returns at least one certificate.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|source| TlsError::Pem {
                key: self.key,
                path: self.path.clone(),
                source,
            })?;
        match certificates.is_empty() {
            true => Err(self.no_certificate()),
            false => Ok(certificates),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| TlsError::NoPrivateKey {
            key: self.key,
            path: self.path.clone(),
        })
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|source| self.unusable(source))?;
        }
        Ok(roots)
    }

    fn no_certificate(&self) -> TlsError {
        TlsError::NoCertificate {
            key: self.key,
            path: self.path.clone(),
        }
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        TlsError::Unusable {
            key: self.key,
            path: self.path.clone(),
            source,
        }
    }
}
