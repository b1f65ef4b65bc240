use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What a listener proves with who it is: a certificate with its chain, and its private key.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What is wrong with them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {why}")]
    Pem { path: String, why: rustls::pki_types::pem::Error },
    #[error("{0}: holds no certificate in PEM")]
    NoCertificate(String),
    #[error("{0}: others can read this key; run chmod 600 on it")]
    Readable(String),
    #[error("{path}: {why}")]
    Io { path: String, why: std::io::Error },
    #[error("{certificate} and {key} do not go together: {why}")]
    Mismatch { certificate: String, key: String, why: rustls::Error },
}

impl TlsFiles {
    /// Reads them. TLS 1.2 (RFC 5246) and 1.3 (RFC 8446) are spoken, HTTP/1.1 within.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let shown = |path: &Path| path.display().to_string();
        let wrong = |path: &Path| {
            let path = shown(path);
            move |why| TlsError::Pem { path, why }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(wrong(&self.certificate))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(wrong(&self.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(shown(&self.certificate)));
        }
        let mode = std::fs::metadata(&self.key).map(|file| file.permissions().mode());
        let mode = mode.map_err(|why| TlsError::Io { path: shown(&self.key), why })?;
        if mode & 0o077 != 0 {
            return Err(TlsError::Readable(shown(&self.key)));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(wrong(&self.key))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|why| TlsError::Mismatch {
            certificate: shown(&self.certificate),
            key: shown(&self.key),
            why,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
