//! The providers and the credentials to call them with.

use std::path::PathBuf;

use indexmap::IndexMap;

use crate::config::read::{choices, section};
use crate::config::value::{BaseUrl, Count, Header, Proxy, Secret};

section! {
    /// Where requests can go.
    pub struct Provider {
        /// What it speaks: a dialect (`openai`, `anthropic`, `bedrock`, …) or a preset; by default the provider's name.
        kind: Option<String> = None;
        /// Where it is; by default the kind's own.
        base_url: Option<BaseUrl> = None;
        /// The credentials to call it with. None: the request carries none.
        credentials: Vec<Credential> = Vec::new();
        /// The version of its API: Azure's `api-version`, Anthropic's `anthropic-version`.
        api_version: Option<String> = None;
        /// The region (Bedrock, Vertex).
        region: Option<String> = None;
        /// The project (Vertex; also OpenAI's project header).
        project: Option<String> = None;
        /// The organization (OpenAI).
        organization: Option<String> = None;
        /// `max_tokens` for callers that give none, where the provider needs one (Anthropic).
        default_max_tokens: Option<Count> = None;
        /// The version of HTTP to call it with.
        http: HttpVersion = HttpVersion::Http1;
        /// The certificate authorities that its certificate may be signed by, PEM; by default the system's, which they stand in for.
        ca: Option<PathBuf> = None;
        /// The HTTP proxy on the way to it, or `none`; by default what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
        proxy: Option<Proxy> = None;
        /// What becomes of its request when the caller leaves.
        on_disconnect: OnDisconnect = OnDisconnect::Cancel;
        /// Headers for every request to it, each a secret or a text.
        headers: IndexMap<Header, Secret> = IndexMap::new();
        /// Answered by the simulator inside this process: no network, no credential, no cost.
        simulated: bool = false;
    }
}

choices! {
    /// The version of HTTP towards a provider.
    pub enum HttpVersion {
        /// HTTP/2 where the provider offers it by ALPN, else HTTP/1.1.
        Auto = "auto",
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "http2",
    }
}

choices! {
    /// What becomes of the provider's request when the caller leaves.
    pub enum OnDisconnect {
        /// It ends at once.
        Cancel = "cancel",
        /// It is read to its end, so that its usage is exact.
        Drain = "drain",
    }
}

section! {
    /// A credential of a provider.
    pub struct Credential {
        /// Its name in answers, logs and metrics.
        id: String;
        /// The key, for providers that take one. Bedrock takes one too, in place of the access key.
        api_key: Option<Secret> = None;
        /// The access key's id (AWS).
        access_key_id: Option<Secret> = None;
        /// The secret access key (AWS).
        secret_access_key: Option<Secret> = None;
        /// The session token of temporary credentials (AWS).
        session_token: Option<Secret> = None;
        /// The service account as JSON (Vertex).
        service_account: Option<Secret> = None;
        /// Its share beside the provider's other credentials; 0: only when no other is left.
        weight: u32 = 1;
        /// Requests a minute that the provider allows it.
        rpm: Option<Count> = None;
        /// Tokens a minute that the provider allows it.
        tpm: Option<Count> = None;
        /// Requests at once that the provider allows it.
        concurrent: Option<Count> = None;
        /// Whether it is used at all.
        enabled: bool = true;
    }
}
