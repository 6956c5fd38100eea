//! One way to a Redis, whatever kind it is: a server, a cluster, or a master that sentinels know; with TLS and ACL
//! users. Plain commands in pipelines, each on one key: no script, and a transaction only where ledgers are copied.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisResult, TlsMode,
};

use crate::config::{self, Secret, SecretError};

/// The longest time to connect: the probe that waits for it holds nobody up.
const CONNECT: Duration = Duration::from_secs(2);

/// The longest time for one answer, as the client itself measures it. The link gives up long before; this ends what it
/// left.
const ANSWER: Duration = Duration::from_secs(2);

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct Settings(Way);

#[derive(Clone, Debug)]
enum Way {
    Single(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel { master: String, sentinels: Vec<ConnectionInfo>, node: RedisConnectionInfo },
}

/// Why Redis cannot be reached by these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A secret is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A URL is none of Redis.
    #[error("store.redis: {0}")]
    Url(String),
    /// Nothing is said.
    #[error("store.redis: one of `url`, `cluster` and `sentinel` is needed")]
    Nothing,
}

impl Settings {
    /// What the configuration says, its secrets fetched.
    ///
    /// # Errors
    /// A secret is not there, or a URL is none.
    pub fn of(written: &config::Redis) -> Result<Self, SettingsError> {
        let login = |server| login(server, written);
        if let Some(url) = &written.url {
            return Ok(Self(Way::Single(with_login(server(url)?, &login)?)));
        }
        if let Some(sentinel) = &written.sentinel {
            let sentinels = sentinel.nodes.iter().map(server).collect::<Result<_, _>>()?;
            let node = login(RedisConnectionInfo::default())?;
            return Ok(Self(Way::Sentinel { master: sentinel.master.clone(), sentinels, node }));
        }
        let nodes = written.cluster.iter().map(|node| with_login(server(node)?, &login));
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>()?;
        if nodes.is_empty() { Err(SettingsError::Nothing) } else { Ok(Self(Way::Cluster(nodes))) }
    }
}

/// The URL's own user and password stay where the configuration names none.
fn login(mut server: RedisConnectionInfo, written: &config::Redis) -> Result<RedisConnectionInfo, SettingsError> {
    if let Some(username) = &written.username {
        server = server.set_username(username);
    }
    if let Some(password) = &written.password {
        server = server.set_password(password.resolve()?.as_str());
    }
    Ok(server)
}

fn with_login(
    info: ConnectionInfo,
    login: &impl Fn(RedisConnectionInfo) -> Result<RedisConnectionInfo, SettingsError>,
) -> Result<ConnectionInfo, SettingsError> {
    let server = login(info.redis_settings().clone())?;
    Ok(info.set_redis_settings(server))
}

fn server(url: &Secret) -> Result<ConnectionInfo, SettingsError> {
    // The library's message names no part of the URL, which may hold a password.
    url.resolve()?.as_str().into_connection_info().map_err(|error| SettingsError::Url(error.to_string()))
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// A connection, shared by all who clone it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn open(settings: &Settings) -> RedisResult<Self> {
        match &settings.0 {
            Way::Single(info) => {
                let client = Client::open(info.clone())?;
                Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&timeouts()).await?))
            }
            Way::Cluster(nodes) => {
                let client = ClusterClientBuilder::new(nodes.clone()).connection_timeout(CONNECT);
                let client = client.response_timeout(ANSWER).retries(1).build()?;
                Ok(Self::Cluster(client.get_async_connection().await?))
            }
            Way::Sentinel { master, sentinels, node } => {
                let of_node = SentinelNodeConnectionInfo::default().set_redis_connection_info(node.clone());
                let secure = sentinels.iter().any(is_tls);
                let of_node = if secure { of_node.set_tls_mode(TlsMode::Secure) } else { of_node };
                let (sentinels, kind) = (sentinels.clone(), SentinelServerType::Master);
                let mut client = SentinelClient::build(sentinels, master, Some(of_node), kind)?;
                Ok(Self::Single(client.get_async_connection_with_config(&timeouts()).await?))
            }
        }
    }

    pub(super) async fn run<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        match self {
            Self::Single(connection) => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }
}

fn timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER))
}
