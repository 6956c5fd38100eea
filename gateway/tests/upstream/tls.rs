//! TLS: who is believed and who is not.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway::net::upstream::{Cause, Endpoint, EndpointSpec, Upstreams};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::provider::{NameServer, OK, endpoint, exchange, post, read, read_request, upstreams};

/// A certificate authority of a test's own, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A provider behind TLS that answers `ok`.
pub struct TlsProvider {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority { issuer, folder };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn server_config(&self, params: CertificateParams) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server_config(certificate.der().clone(), &key)
    }
}

pub fn names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap()
}

impl TlsProvider {
    pub async fn start(authority: &Authority, hosts: &[&str]) -> TlsProvider {
        TlsProvider::with(authority.server_config(names(hosts))).await
    }

    pub async fn with(config: ServerConfig) -> TlsProvider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                let count = count.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    count.fetch_add(1, Ordering::SeqCst);
                    while read_request(&mut stream).await.is_some() {
                        stream.write_all(OK).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
            }
        });
        TlsProvider { address, connections }
    }

    pub fn endpoint(&self, host: &str, authority: &Authority) -> Arc<Endpoint> {
        let url = format!("https://{host}:{}", self.address.port());
        let mut spec = EndpointSpec::new(url);
        spec.ca_file = Some(authority.file());
        endpoint(spec)
    }
}

/// What comes of asking a provider with this certificate as `localhost`.
async fn refusal(config: ServerConfig, host: &str, authority: &Authority) -> String {
    let provider = TlsProvider::with(config).await;
    let fault = post(&upstreams(), &provider.endpoint(host, authority), b"{}").await;
    let fault = fault.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Tls, false), "{fault:?}");
    fault.detail
}

#[tokio::test]
async fn a_provider_of_the_configured_authority_is_believed_and_its_connection_reused() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint("localhost", &authority));
    for _ in 0..5 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
    assert_eq!(provider.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_provider_that_is_an_address_is_checked_like_any_other() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["127.0.0.1"]).await;
    let endpoint = provider.endpoint("127.0.0.1", &authority);
    assert_eq!(exchange(&upstreams(), &endpoint).await.unwrap(), b"ok");
    let other = authority.server_config(names(&["localhost", "127.0.0.9"]));
    let detail = refusal(other, "127.0.0.1", &authority).await;
    assert!(detail.contains("for another host"), "{detail}");
    let stranger = Authority::new().server_config(names(&["127.0.0.1"]));
    let detail = refusal(stranger, "127.0.0.1", &authority).await;
    assert!(detail.contains("trusted authority"), "{detail}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new();
    let config = authority.server_config(names(&["elsewhere.test"]));
    let detail = refusal(config, "localhost", &authority).await;
    assert!(detail.contains("for another host"), "{detail}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let config = Authority::new().server_config(names(&["localhost"]));
    let detail = refusal(config, "localhost", &Authority::new()).await;
    assert!(detail.contains("trusted authority"), "{detail}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let key = KeyPair::generate().unwrap();
    let certificate = names(&["localhost"]).self_signed(&key).unwrap();
    let config = server_config(certificate.der().clone(), &key);
    let detail = refusal(config, "localhost", &Authority::new()).await;
    assert!(detail.contains("trusted authority"), "{detail}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let mut params = names(&["localhost"]);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let detail = refusal(authority.server_config(params), "localhost", &authority).await;
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn the_system_roots_do_not_vouch_for_a_private_provider() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let url = format!("https://localhost:{}", provider.address.port());
    let fault = post(&upstreams(), &endpoint(EndpointSpec::new(url)), b"{}").await;
    assert_eq!(fault.err().unwrap().cause, Cause::Tls);
}

#[tokio::test]
async fn endpoints_that_trust_different_authorities_share_no_connection() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let upstreams = upstreams();
    exchange(&upstreams, &provider.endpoint("localhost", &authority)).await.unwrap();
    let wary = provider.endpoint("localhost", &Authority::new());
    assert_eq!(exchange(&upstreams, &wary).await.unwrap_err().cause, Cause::Tls);
}

#[tokio::test]
async fn a_name_is_told_to_the_provider_and_checked_though_it_resolves_elsewhere() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["provider.test"]).await;
    let names = NameServer::start(60, &[[127, 0, 0, 1]]).await;
    let upstreams = Upstreams::new(names.resolver());
    let right = provider.endpoint("provider.test", &authority);
    assert_eq!(exchange(&upstreams, &right).await.unwrap(), b"ok");
    let wrong = provider.endpoint("other.test", &authority);
    assert_eq!(exchange(&upstreams, &wrong).await.unwrap_err().cause, Cause::Tls);
}

#[tokio::test]
async fn tls_1_2_is_spoken() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let certificate = names(&["localhost"]).signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let provider = TlsProvider::with(config).await;
    let endpoint = provider.endpoint("localhost", &authority);
    assert_eq!(exchange(&upstreams(), &endpoint).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_provider_that_speaks_no_tls_is_a_tls_fault() {
    let authority = Authority::new();
    let provider = crate::provider::Provider::start(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 512]).await;
    })
    .await;
    let mut spec = EndpointSpec::new(format!("https://localhost:{}", provider.address.port()));
    spec.ca_file = Some(authority.file());
    let fault = post(&upstreams(), &endpoint(spec), b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Tls, false));
}

#[tokio::test]
async fn a_body_until_close_that_tls_did_not_close_is_truncated() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(names(&["localhost"]))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
        stream.flush().await.unwrap();
        // The TCP connection ends without TLS having said so: anybody could have cut it.
        stream.get_mut().0.shutdown().await.unwrap();
    });
    let mut spec = EndpointSpec::new(format!("https://localhost:{port}"));
    spec.ca_file = Some(authority.file());
    let mut answer = post(&upstreams(), &endpoint(spec), b"{}").await.unwrap();
    assert_eq!(read(&mut answer).await.unwrap().unwrap(), "half");
    assert_eq!(read(&mut answer).await.unwrap_err().cause, Cause::Truncated);
}

#[test]
fn a_ca_file_that_is_none_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        path
    };
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    for path in [
        folder.path().join("missing.pem"),
        file("empty.pem", b""),
        file("text.pem", b"hello"),
        file("base64.pem", pem("!!!!").as_bytes()),
        file("der.pem", pem("aGVsbG8=").as_bytes()),
        file("key.pem", KeyPair::generate().unwrap().serialize_pem().as_bytes()),
    ] {
        let mut spec = EndpointSpec::new("https://provider.test");
        spec.ca_file = Some(path.clone());
        let fault = Endpoint::new(spec).unwrap_err().to_string();
        assert!(fault.contains(path.to_str().unwrap()), "{fault}");
    }
}

#[test]
fn a_machine_without_root_certificates_says_so_instead_of_dying() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.pem");
    let pem = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    std::fs::write(&broken, pem).unwrap();
    for roots in [folder.path().join("missing.pem"), broken] {
        // The roots are read from the environment of the process, so it takes another process.
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::without_root_certificates", "--ignored"])
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

#[tokio::test]
#[ignore = "run by a_machine_without_root_certificates_says_so_instead_of_dying, with its environment"]
async fn without_root_certificates() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let plain = crate::provider::Provider::answering(OK).await;
    let upstreams = upstreams();
    assert!(upstreams.system_roots().is_err());
    let url = format!("https://localhost:{}", provider.address.port());
    let fault = post(&upstreams, &endpoint(EndpointSpec::new(url)), b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Tls, false));
    assert!(fault.detail.contains("SSL_CERT_FILE"), "{}", fault.detail);
    let believed = provider.endpoint("localhost", &authority);
    assert_eq!(exchange(&upstreams, &believed).await.unwrap(), b"ok");
    assert_eq!(exchange(&upstreams, &plain.endpoint()).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_ca_file_that_breaks_after_it_was_read_is_a_fault_and_not_the_end() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let endpoint = provider.endpoint("localhost", &authority);
    std::fs::remove_file(authority.file()).unwrap();
    let fault = post(&upstreams(), &endpoint, b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Tls, false));
    assert!(fault.detail.contains("`ca`"), "{}", fault.detail);
}
