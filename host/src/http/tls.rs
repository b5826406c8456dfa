//! TLS for the server: a certificate chain and its key, as PEM. Handshakes are rustls', the cryptography is ring's.

use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate or its key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate file is not understood: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    #[error("the certificate file has no certificate in it (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("the key file has no private key that is understood (PKCS #8, PKCS #1 or SEC1, not encrypted): {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("certificate and key can't be used together: {0}")]
    Pair(rustls::Error),
}

/// The chain begins with the server's own certificate.
pub fn config(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsError::Key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let mut config =
        config.map_err(TlsError::Pair)?.with_no_client_auth().with_single_cert(chain, key).map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pair_of_certificate_and_key_is_refused() {
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        assert!(config(chain.as_bytes(), key.as_bytes()).is_ok());
        let refused = |chain: &str, key: &str| config(chain.as_bytes(), key.as_bytes()).err().unwrap().to_string();
        assert!(refused("", &key).contains("no certificate"));
        assert!(refused(&chain, "").contains("no private key"));
        assert!(refused(&chain, &chain).contains("no private key"));
        assert!(refused("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key).contains("certificate"));
        assert!(refused(&chain, &other.signing_key.serialize_pem()).contains("together"));
    }
}
