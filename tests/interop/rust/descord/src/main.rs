//! A client shaped like Descord's (libp2p 0.56, TCP, Noise, yamux multistream V1, 20 s upgrades,
//! 60 s idle): Kademlia in server mode and gossipsub, which open their streams towards the relay
//! at once, and neither identify nor ping. The relay's peer id is learned from the handshake.

use std::time::Duration;

use libp2p::core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version, Transport};
use libp2p::{
    gossipsub, identity, kad, noise, relay, swarm::NetworkBehaviour, tcp, yamux, PeerId,
    StreamProtocol, Swarm,
};

#[path = "../../shared/client.rs"]
mod client;

pub const CLIENT: &str = "descord";

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub kad: kad::Behaviour<kad::store::MemoryStore>,
    pub gossipsub: gossipsub::Behaviour,
    pub relay: relay::client::Behaviour,
    pub stream: libp2p_stream::Behaviour,
}

pub fn relay_event(event: BehaviourEvent) -> Option<relay::client::Event> {
    match event {
        BehaviourEvent::Relay(event) => Some(event),
        _ => None,
    }
}

fn transport(
    key: &identity::Keypair,
    relay: relay::client::Transport,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    relay
        .or_transport(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).expect("a noise key"))
        .multiplex(yamux::Config::default())
        .timeout(Duration::from_secs(20))
        .boxed()
}

pub fn new_swarm() -> Swarm<Behaviour> {
    let key = identity::Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let (relay_transport, relay) = relay::client::new(peer);
    let mut kad = kad::Behaviour::with_config(
        peer,
        kad::store::MemoryStore::new(peer),
        kad::Config::new(StreamProtocol::new("/ipfs/kad/1.0.0")),
    );
    kad.set_mode(Some(kad::Mode::Server));
    let mut gossipsub = gossipsub::Behaviour::new(
        gossipsub::MessageAuthenticity::Signed(key.clone()),
        gossipsub::Config::default(),
    )
    .expect("a gossipsub configuration");
    gossipsub.subscribe(&gossipsub::IdentTopic::new("descord")).expect("a subscription");
    Swarm::new(
        transport(&key, relay_transport),
        Behaviour { kad, gossipsub, relay, stream: libp2p_stream::Behaviour::new() },
        peer,
        libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(Duration::from_secs(60)),
    )
}

#[tokio::main]
async fn main() {
    client::main().await
}
