//! Certificate authorities trusted in addition to the system's.

use std::fs;

use object_store::{Certificate, ClientOptions};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::variables::value;

/// Adds the authorities of `AWS_CA_BUNDLE` if the store is on S3. Those of `SSL_CERT_FILE`, which replace the system's,
/// are loaded by the TLS library; it passes over a file that it cannot use, so the file is checked here.
pub(crate) fn trust(options: ClientOptions, env: &[(String, String)], scheme: &str) -> Result<ClientOptions, String> {
    if let Some(file) = value(env, "SSL_CERT_FILE") {
        authorities("SSL_CERT_FILE", file)?;
    }
    let bundle = value(env, "AWS_CA_BUNDLE").filter(|_| scheme == "s3");
    let added = bundle.map_or(Ok(Vec::new()), |file| authorities("AWS_CA_BUNDLE", file))?;
    added.iter().try_fold(options, |options, authority| {
        let authority = Certificate::from_der(authority).map_err(|e| format!("AWS_CA_BUNDLE: {e}"))?;
        Ok(options.with_root_certificate(authority))
    })
}

/// The certificates in a file that a variable names.
fn authorities(name: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fix = "set it to a file with the certificate of the server's authority in PEM format, or unset it";
    let pem = fs::read(file).map_err(|e| format!("{name}={file} cannot be read ({e}); {fix}"))?;
    // Among those of a whole system may be some that the TLS library does not accept.
    let usable = |authority: &CertificateDer<'static>| RootCertStore::empty().add(authority.clone()).is_ok();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).map_while(Result::ok).filter(usable).collect();
    match found.is_empty() {
        true => Err(format!("{name}={file} contains no certificate; {fix}")),
        false => Ok(found),
    }
}
