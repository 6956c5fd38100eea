//! The load generator.

use std::net::SocketAddr;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    simulator::run(SocketAddr::from(([127, 0, 0, 1], 18080))).await
}
