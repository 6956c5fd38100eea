//! Whom Weir believes: the machine's root certificates, or one endpoint's own authorities.
//!
//! Certificates are always checked, chain and name; there is no switch. A `ca_file` stands in the
//! roots' place (as with curl's `--cacert`, nginx and Envoy): whoever names a private authority
//! does not want a hundred public ones to vouch for that host. A bundle may name both.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use pingora::tls::{CertificateDer, RootCertStore, load_native_certs};
use rustls::pki_types::pem::{PemObject, SectionKind};

/// The certificate authorities of one endpoint: a PEM file that was looked over.
#[derive(Clone, Debug)]
pub struct Authorities {
    pub(super) file: PathBuf,
    /// Tells what was in the file, so that connections that trust different authorities stay apart.
    pub(super) fingerprint: u64,
}

/// Why certificate authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is missing, unreadable or not PEM.
    #[error("cannot read certificates from {}: {why}", file.display())]
    Unreadable {
        /// The file as configured.
        file: PathBuf,
        /// What reading it said.
        why: String,
    },
    /// The file has no certificate in it.
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// The machine has no usable root certificates.
    #[error(
        "this machine has no usable root certificates ({0}): install the package ca-certificates, \
         point SSL_CERT_FILE at a bundle, or give the provider a ca_file"
    )]
    NoRoots(String),
}

impl Authorities {
    /// Checks every certificate of a PEM file. Blocks on the file; call it at start or reload.
    pub fn read(file: &Path) -> Result<Authorities, TrustError> {
        let unreadable = |why: String| TrustError::Unreadable { file: file.to_owned(), why };
        let mut store = RootCertStore::empty();
        let mut fingerprint = DefaultHasher::new();
        let sections = <(SectionKind, Vec<u8>)>::pem_file_iter(file);
        for section in sections.map_err(|error| unreadable(error.to_string()))? {
            let (kind, der) = section.map_err(|error| unreadable(error.to_string()))?;
            if kind != SectionKind::Certificate {
                return Err(unreadable("it has something other than certificates".into()));
            }
            der.hash(&mut fingerprint);
            let added = store.add(CertificateDer::from(der));
            added.map_err(|error| unreadable(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(TrustError::Empty(file.to_owned()));
        }
        Ok(Authorities { file: file.to_owned(), fingerprint: fingerprint.finish() })
    }
}

/// Looks the machine's root certificates over, so that pingora's loader, which panics, need not.
/// Blocks on files; call it at start.
pub(super) fn check_system_roots() -> Result<(), TrustError> {
    let roots = load_native_certs().map_err(|error| TrustError::NoRoots(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|error| TrustError::NoRoots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(TrustError::NoRoots("none found".into()));
    }
    Ok(())
}
