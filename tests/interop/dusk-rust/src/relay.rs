//! A relay of the original's crates and parameters (dusk.md §4, §5, §10.2), with a directory that
//! lasts as long as the process and credentials that no TURN server knows. What the tests ask of
//! our relay can be asked of this one.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self as rr, ProtocolSupport};
use libp2p::swarm::{behaviour::toggle::Toggle, NetworkBehaviour, SwarmEvent};
use libp2p::{
    gossipsub, identify, noise, ping, relay, rendezvous, tcp, yamux, PeerId,
};

use crate::wire::{
    self, DirectoryEntry, DirectoryRequest, DirectoryResponse, GifResponse, TurnResponse,
};

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossipsub: gossipsub::Behaviour,
    rendezvous: rendezvous::server::Behaviour,
    directory: wire::Directory,
    turn: Toggle<wire::Turn>,
    gifs: wire::Gifs,
}

fn key_in(path: &Path) -> Keypair {
    if let Ok(bytes) = std::fs::read(path) {
        return Keypair::from_protobuf_encoding(&bytes).expect("a key file");
    }
    let key = Keypair::generate_ed25519();
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a data directory");
    std::fs::write(path, key.to_protobuf_encoding().expect("an encoding")).expect("a key file");
    key
}

type Rows = HashMap<PeerId, DirectoryEntry>;

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// dusk.md §7.
fn answer(rows: &mut Rows, peer: PeerId, request: DirectoryRequest) -> DirectoryResponse {
    match request {
        DirectoryRequest::Register { display_name, relay_addr } => {
            let name = display_name.trim().to_string();
            if name.is_empty() || name.len() > 64 {
                return DirectoryResponse::Error("display_name must be 1-64 characters".into());
            }
            let row = DirectoryEntry {
                peer_id: peer.to_string(), display_name: name, last_seen: unix_s(), relay_addr,
            };
            rows.insert(peer, row);
            DirectoryResponse::Ok
        }
        DirectoryRequest::Search { query } => {
            let query = query.trim();
            let wanted = query.to_ascii_lowercase();
            let mut found: Vec<DirectoryEntry> = rows
                .values()
                .filter(|row| row.display_name.to_ascii_lowercase().contains(&wanted)
                    || row.peer_id == query)
                .cloned()
                .collect();
            found.sort_by_key(|row| std::cmp::Reverse(row.last_seen));
            found.truncate(20);
            DirectoryResponse::Results(found)
        }
        DirectoryRequest::Remove => {
            rows.remove(&peer);
            DirectoryResponse::Ok
        }
    }
}

fn credentials(peer: PeerId, host: &str) -> TurnResponse {
    TurnResponse {
        username: format!("{}:{peer}", unix_s() + 86400),
        password: "nobody checks it".into(),
        ttl: 86400,
        uris: vec![format!("turn:{host}:3478"), format!("turn:{host}:3478?transport=tcp")],
    }
}

fn behaviour(key: &Keypair, turn: bool) -> Behaviour {
    let peer = key.public().to_peer_id();
    let identify = identify::Config::new("/dusk/relay/1.0.0".into(), key.public());
    let ping = ping::Config::new().with_interval(Duration::from_secs(30));
    let mut gossipsub = wire::gossipsub(key, 10, 5);
    for topic in [wire::SYNC, wire::DIRECTORY, wire::FEDERATION] {
        gossipsub.subscribe(&gossipsub::IdentTopic::new(topic)).expect("a subscription");
    }
    Behaviour {
        relay: relay::Behaviour::new(peer, relay::Config::default()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping.with_timeout(Duration::from_secs(20))),
        gossipsub,
        rendezvous: rendezvous::server::Behaviour::new(rendezvous::server::Config::default()),
        directory: wire::directory(ProtocolSupport::Inbound),
        turn: turn.then(|| wire::turn(ProtocolSupport::Inbound)).into(),
        gifs: wire::gifs(ProtocolSupport::Inbound),
    }
}

pub async fn main(data: &str, listen: &str) {
    let turn = std::env::var("DUSK_TURN_PUBLIC_IP").ok();
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key_in(&Path::new(data).join("keypair")))
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a TCP transport")
        .with_behaviour(|key| behaviour(key, turn.is_some()))
        .expect("behaviours")
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(300)))
        .build();
    let me = *swarm.local_peer_id();
    let mut rows = Rows::new();
    swarm.listen_on(listen.parse().expect("an address")).expect("a listener");
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                swarm.add_external_address(address.clone());
                println!("relay address: {}", address.with(Protocol::P2p(me)));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Directory(rr::Event::Message {
                peer, message: rr::Message::Request { request, channel, .. },
            })) => {
                let reply = answer(&mut rows, peer, request);
                let _ = swarm.behaviour_mut().directory.send_response(channel, reply);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Turn(rr::Event::Message {
                peer, message: rr::Message::Request { channel, .. },
            })) => {
                let reply = credentials(peer, turn.as_deref().unwrap_or_default());
                if let Some(turn) = swarm.behaviour_mut().turn.as_mut() {
                    let _ = turn.send_response(channel, reply);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gifs(rr::Event::Message {
                message: rr::Message::Request { channel, .. }, ..
            })) => {
                let none = GifResponse { results: vec![] };
                let _ = swarm.behaviour_mut().gifs.send_response(channel, none);
            }
            _ => {}
        }
    }
}
