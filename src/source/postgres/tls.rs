//! Encrypts a connection with rustls, with libpq's meanings of `sslmode`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::definition::{PostgresUrl, SslMode};

/// The client side of a TLS connection; the error is the reason why it cannot be set up.
pub fn connection(url: &PostgresUrl) -> Result<ClientConnection, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let checked = match url.tls {
        SslMode::Disable | SslMode::Prefer => Checked::Nothing,
        // As in libpq, naming root certificates makes `require` verify the chain.
        SslMode::Require if url.root_certificates.is_none() => Checked::Nothing,
        SslMode::Require | SslMode::VerifyCa => Checked::Chain,
        SslMode::VerifyFull => Checked::All,
    };
    let inner = match checked {
        Checked::Nothing => None,
        Checked::Chain | Checked::All => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(url)?), provider.clone());
            Some(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            provider,
            inner,
            all: checked == Checked::All,
        }))
        .with_no_client_auth();
    let name = ServerName::try_from(url.host.clone()).map_err(|error| format!("host {:?}: {error}", url.host))?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())
}

/// The root certificates that are trusted.
fn roots(url: &PostgresUrl) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match &url.root_certificates {
        Some(path) => {
            let unread =
                |error: &dyn std::fmt::Display| format!("could not read certificates of {}: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unread(&error))? {
                let certificate = certificate.map_err(|error| unread(&error))?;
                store.add(certificate).map_err(|error| unread(&error))?;
            }
        }
        None => {
            // rustls may not support all kinds of certificates that a system has.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err("there are no root certificates; name some by sslrootcert".into());
    }
    Ok(store)
}

/// What is verified of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Nothing,
    /// The chain up to a trusted root.
    Chain,
    /// The chain and the host name.
    All,
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None if any certificate is accepted.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the host name must match.
    all: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The host name is verified last, so the chain is already known to be good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.all => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
