//! The current rust-libp2p: TCP, Noise, yamux, with identify and ping as most applications have.

use std::time::Duration;

use libp2p::{identify, noise, ping, relay, swarm::NetworkBehaviour, tcp, yamux, Swarm};

#[path = "../../shared/client.rs"]
mod client;

pub const CLIENT: &str = "rust";

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub relay: relay::client::Behaviour,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub stream: libp2p_stream::Behaviour,
}

pub fn relay_event(event: BehaviourEvent) -> Option<relay::client::Event> {
    match event {
        BehaviourEvent::Relay(event) => Some(event),
        _ => None,
    }
}

pub fn new_swarm() -> Swarm<Behaviour> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a TCP transport")
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .expect("a relay transport")
        .with_behaviour(|key, relay| Behaviour {
            relay,
            identify: identify::Behaviour::new(identify::Config::new(
                "/interop/1".into(),
                key.public(),
            )),
            ping: ping::Behaviour::default(),
            stream: libp2p_stream::Behaviour::new(),
        })
        .expect("behaviours")
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

#[tokio::main]
async fn main() {
    client::main().await
}
