//! Whom Weir believes: the machine's root certificates, or one endpoint's own authorities; and what it shows to
//! clients.
//!
//! Certificates are always checked, chain and name; there is no switch. A `ca_file` stands in the
//! roots' place (as with curl's `--cacert`, nginx and Envoy): whoever names a private authority
//! does not want a hundred public ones to vouch for that host. A bundle may name both.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::tls::{RootCertStore, load_native_certs};
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::files;

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
         point SSL_CERT_FILE at a bundle, or give the provider a `ca`"
    )]
    NoRoots(String),
}

impl Authorities {
    /// Checks every certificate of a PEM file. Blocks on the file; call it at start or reload.
    pub fn read(file: &Path) -> Result<Authorities, TrustError> {
        let unreadable = |why: String| TrustError::Unreadable { file: file.to_owned(), why };
        let mut store = RootCertStore::empty();
        let mut fingerprint = DefaultHasher::new();
        let opened = files::open(file).map_err(|error| unreadable(error.to_string()))?;
        for section in <(SectionKind, Vec<u8>)>::pem_reader_iter(opened) {
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

/// A listener's certificate chain and its key. What the files hold can be read again while it serves, so that a renewed
/// certificate costs no restart.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    shown: ArcSwap<CertifiedKey>,
}

/// Why a listener's certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, unreadable or not PEM.
    #[error("cannot read {what} from {}: {why}", file.display())]
    Unreadable {
        /// Certificate or key.
        what: &'static str,
        /// The file as configured.
        file: PathBuf,
        /// What reading it said.
        why: String,
    },
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("the key in {} does not fit the certificate in {}: {why}", key.display(), certificate.display())]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        why: String,
    },
}

impl Identity {
    /// Reads the PEM files. Blocks on them; call it at start.
    ///
    /// # Errors
    /// What cannot be shown to clients.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let shown = ArcSwap::from_pointee(certified(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), shown })
    }

    /// Reads the files again; gives what is to be shown from now on to [`Identity::show`].
    ///
    /// # Errors
    /// What the files hold now cannot be shown.
    pub fn renewed(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        certified(&self.certificate, &self.key).map(Arc::new)
    }

    /// Shows this to clients that connect from now on.
    pub fn show(&self, renewed: Arc<CertifiedKey>) {
        self.shown.store(renewed);
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, IdentityError> {
    let unreadable = |what, file: &Path, why: String| IdentityError::Unreadable { what, file: file.to_owned(), why };
    let no_chain = |why: String| unreadable("a certificate", certificate, why);
    let chain = opened(certificate)
        .and_then(|file| CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>())
        .map_err(|error| no_chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_chain("there is none".to_owned()));
    }
    let private = opened(key).and_then(PrivateKeyDer::from_pem_reader);
    let private = private.map_err(|error| unreadable("a key", key, error.to_string()))?;
    CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider()).map_err(|error| {
        IdentityError::Unfit { certificate: certificate.to_owned(), key: key.to_owned(), why: error.to_string() }
    })
}

fn opened(file: &Path) -> Result<File, pem::Error> {
    files::open(file).map_err(pem::Error::Io)
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
