//! One receiver of alerts: where it is, what its alerts are signed with, and how often it is tried.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use tokio::sync::watch;

use super::notice::{BadSecret, Notice, Signer};
use super::{Outcome, Queue, Told};
use crate::config::{self, SecretError};
use crate::net::proxy::Proxies;
use crate::net::upstream::{Endpoint, EndpointError, EndpointSpec, Outgoing, Upstreams};

/// How often an alert is posted at most.
const TRIES: u32 = 6;

/// The wait before the second try; each later one is [`GROWTH`] times as long: six minutes together.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const GROWTH: u32 = 4;

/// How long a connection may take, and a whole try.
const CONNECT: Duration = Duration::from_secs(3);
const TRY: Duration = Duration::from_secs(10);

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A receiver.
#[derive(Clone)]
pub struct Receiver {
    /// For the log: the rest of a URL may be a secret.
    host: String,
    path: String,
    endpoint: Arc<Endpoint>,
    signer: Option<Signer>,
}

/// Why a receiver cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// A secret is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Its secret is none.
    #[error(transparent)]
    BadSecret(#[from] BadSecret),
    /// Its URL is none.
    #[error("the URL is not one: write https://host/path")]
    Url,
    /// Its address cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Why a try was in vain.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it did not answer within {} s", TRY.as_secs())]
    Silent,
    #[error("{0}")]
    Unreached(#[from] crate::net::upstream::Fault),
}

impl Receiver {
    /// The receiver as it is written, its secrets fetched.
    ///
    /// # Errors
    /// A secret is not there, or what is written is no receiver.
    pub fn of(written: &config::Webhook, proxies: &Proxies) -> Result<Self, ReceiverError> {
        let url = written.url.resolve()?;
        let uri: Uri = url.trim().parse().map_err(|_| ReceiverError::Url)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ReceiverError::Url);
        };
        let origin = format!("{scheme}://{authority}");
        let signer = written.secret.as_ref().map(|secret| Ok::<_, ReceiverError>(Signer::new(&secret.resolve()?)?));
        let spec = EndpointSpec { proxies: proxies.clone(), ..EndpointSpec::new(origin) };
        Ok(Self {
            host: authority.host().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            endpoint: Arc::new(Endpoint::new(spec)?),
            signer: signer.transpose()?,
        })
    }

    /// Posts what is queued until the process ends, and then what still waits, each once more.
    pub(super) async fn serve(self, upstreams: Upstreams, queue: Queue, told: Told, mut ending: watch::Receiver<bool>) {
        let mut queue = queue.lock().await;
        loop {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                _ = ending.wait_for(|over| *over) => queue.try_recv().ok(),
            };
            let Some(notice) = next else {
                return;
            };
            told(self.deliver(&upstreams, &notice, &mut ending).await);
        }
    }

    async fn deliver(&self, upstreams: &Upstreams, notice: &Notice, ending: &mut watch::Receiver<bool>) -> Outcome {
        let mut pause = FIRST_PAUSE;
        for tried in 1.. {
            let last = tried >= TRIES || *ending.borrow();
            match self.post(upstreams, notice).await {
                Ok(()) => return Outcome::Delivered,
                Err(why) if last => {
                    tracing::error!(host = %self.host, event = %notice.id, %why, "an alert was not taken and is lost");
                    return Outcome::Failed;
                }
                Err(why) => tracing::debug!(host = %self.host, event = %notice.id, %why, "an alert is tried again"),
            }
            let _over = tokio::time::timeout(jittered(pause), ending.wait_for(|over| *over)).await;
            pause *= GROWTH;
        }
        Outcome::Failed
    }

    async fn post(&self, upstreams: &Upstreams, notice: &Notice) -> Result<(), Refused> {
        let headers = self.headers(notice, Timestamp::now());
        let body = std::slice::from_ref(&notice.body);
        let request = Outgoing { method: Method::POST, path: &self.path, headers: &headers, more: &[], body };
        let asked = tokio::time::timeout(TRY, upstreams.send(&self.endpoint, request, CONNECT));
        let status = asked.await.map_err(|_| Refused::Silent)??.status;
        if status.is_success() { Ok(()) } else { Err(Refused::Status(status)) }
    }

    fn headers(&self, notice: &Notice, now: Timestamp) -> HeaderMap {
        let signature = self.signer.as_ref().map(|signer| signer.sign(notice, now.as_second()));
        let told = [
            (ID, Some(notice.id.clone())),
            (TIMESTAMP, Some(now.as_second().to_string())),
            (SIGNATURE, signature),
            (CONTENT_TYPE, Some("application/json".to_owned())),
            (USER_AGENT, Some(concat!("weir/", env!("CARGO_PKG_VERSION")).to_owned())),
        ];
        told.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value?).ok()?))).collect()
    }
}

/// Half of it to all of it, so that several gateways do not come together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
