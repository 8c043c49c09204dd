//! The messages of dusk.md §7-§9 as serde writes them through cbor4ii, and what clients and relay
//! have in common: protocol names, gossip parameters, the message id of dusk.md §10.2.

use std::collections::hash_map::DefaultHasher; // SipHash-1-3 with zero keys
use std::hash::{Hash, Hasher};
use std::time::Duration;

use libp2p::request_response::{self, cbor, ProtocolSupport};
use libp2p::{gossipsub, identity, PeerId, StreamProtocol};
use serde::{Deserialize, Serialize};

pub const SYNC: &str = "dusk/sync";
pub const DIRECTORY: &str = "dusk/directory";
pub const FEDERATION: &str = "dusk/relay/federation";

#[derive(Debug, Serialize, Deserialize)]
pub enum DirectoryRequest {
    Register {
        display_name: String,
        #[serde(default)]
        relay_addr: String,
    },
    Search { query: String },
    Remove,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryEntry {
    pub peer_id: String,
    pub display_name: String,
    pub last_seen: u64,
    #[serde(default)]
    pub relay_addr: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum DirectoryResponse {
    Ok,
    Results(Vec<DirectoryEntry>),
    Error(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TurnRequest {
    pub peer_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TurnResponse {
    pub username: String,
    pub password: String,
    pub ttl: u32,
    pub uris: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GifRequest {
    pub kind: String,
    pub query: String,
    pub limit: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Gif {
    pub id: String,
    pub title: String,
    pub url: String,
    pub preview: String,
    pub dims: [u32; 2],
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GifResponse {
    pub results: Vec<Gif>,
}

pub type Directory = cbor::Behaviour<DirectoryRequest, DirectoryResponse>;
pub type Turn = cbor::Behaviour<TurnRequest, TurnResponse>;
pub type Gifs = cbor::Behaviour<GifRequest, GifResponse>;

fn rpc<Req, Resp>(name: &'static str, seconds: u64, support: ProtocolSupport) -> cbor::Behaviour<Req, Resp>
where
    Req: Serialize + for<'a> Deserialize<'a> + Send + 'static,
    Resp: Serialize + for<'a> Deserialize<'a> + Send + 'static,
{
    let config = request_response::Config::default();
    cbor::Behaviour::new(
        [(StreamProtocol::new(name), support)],
        config.with_request_timeout(Duration::from_secs(seconds)),
    )
}

pub fn directory(support: ProtocolSupport) -> Directory {
    rpc("/dusk/directory/1.0.0", 15, support)
}

pub fn turn(support: ProtocolSupport) -> Turn {
    rpc("/dusk/turn-credentials/1.0.0", 10, support)
}

pub fn gifs(support: ProtocolSupport) -> Gifs {
    rpc("/dusk/gif/1.0.0", 15, support)
}

fn id_of(data: &Vec<u8>, source: Option<&PeerId>) -> String {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    if let Some(source) = source {
        source.hash(&mut hasher);
    }
    hasher.finish().to_string()
}

/// `heartbeat` and `mesh_n_low` are all in which client and relay differ.
pub fn gossipsub(key: &identity::Keypair, heartbeat: u64, mesh_n_low: usize) -> gossipsub::Behaviour {
    let config = gossipsub::ConfigBuilder::default()
        .heartbeat_interval(Duration::from_secs(heartbeat))
        .mesh_n_low(mesh_n_low)
        .validation_mode(gossipsub::ValidationMode::Strict)
        .message_id_fn(|m: &gossipsub::Message| id_of(&m.data, m.source.as_ref()).into())
        .build()
        .expect("a gossipsub configuration");
    gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Signed(key.clone()), config)
        .expect("a gossipsub behaviour")
}

/// The vectors of dusk.md §10.2: a message id of another kind would hide behind duplicates.
pub fn check_ids() {
    let seed: Vec<u8> = (0..32).collect();
    let key = identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes");
    let hello = b"hello".to_vec();
    assert_eq!(id_of(&hello, None), "9754003402134539932");
    assert_eq!(id_of(&hello, Some(&key.public().to_peer_id())), "2522449370233741854");
}
