//! The Dusk client (dusk.md §1.1): connects, reserves, registers and discovers whatever is queued,
//! tells the directory, dials everybody it hears of, does so again every refresh, and comes back
//! with a back-off when the relay is gone.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use futures::{future, StreamExt};
use libp2p::core::{transport::ListenerId, ConnectedPoint};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::rendezvous::{Cookie, Namespace, Registration};
use libp2p::request_response::{self as rr, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::{dial_opts::DialOpts, ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{
    gossipsub, identify, kad, noise, ping, relay, rendezvous, tcp, yamux, Multiaddr, PeerId,
    StreamProtocol,
};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::common::{commands, dial_text, emit, fail, hex, last_peer, serve, text_of, transfer, XFER};
use crate::wire::{
    self, DirectoryRequest, DirectoryResponse, GifRequest, TurnRequest,
};

const BACKOFF_MIN: Duration = Duration::from_secs(2); // dusk.md §1.1, 7
const BACKOFF_MAX: Duration = Duration::from_secs(120);

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    gossipsub: gossipsub::Behaviour,
    rendezvous: rendezvous::client::Behaviour,
    directory: wire::Directory,
    turn: wire::Turn,
    gifs: wire::Gifs,
    stream: libp2p_stream::Behaviour,
}

fn new_swarm(key: Keypair) -> Swarm<Behaviour> {
    libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a TCP transport")
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .expect("a relay transport")
        .with_behaviour(|key, relay| {
            let peer = key.public().to_peer_id();
            let identify = identify::Config::new("/dusk/1.0.0".into(), key.public());
            Behaviour {
                relay,
                identify: identify::Behaviour::new(identify),
                ping: ping::Behaviour::new(
                    ping::Config::new()
                        .with_interval(Duration::from_secs(30))
                        .with_timeout(Duration::from_secs(20)),
                ),
                kad: kad::Behaviour::with_config(
                    peer,
                    kad::store::MemoryStore::new(peer),
                    kad::Config::new(StreamProtocol::new("/ipfs/kad/1.0.0")),
                ),
                gossipsub: wire::gossipsub(key, 1, 4),
                rendezvous: rendezvous::client::Behaviour::new(key.clone()),
                directory: wire::directory(ProtocolSupport::Outbound),
                turn: wire::turn(ProtocolSupport::Outbound),
                gifs: wire::gifs(ProtocolSupport::Outbound),
                stream: libp2p_stream::Behaviour::new(),
            }
        })
        .expect("behaviours")
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(300)))
        .build()
}

enum Then {
    Dial,
    Transfer { total: u64, seed: u32 },
}

struct Client {
    swarm: Swarm<Behaviour>,
    control: libp2p_stream::Control,
    me: PeerId,
    relay: Option<(Multiaddr, PeerId)>,
    listener: Option<ListenerId>,
    accepted: bool,      // the relay said OK
    addrs: Vec<String>,  // what we are reachable by, since then
    reserved: bool,      // both, and said so
    backoff: Duration,
    again_at: Option<Instant>,
    refresh: Duration,
    refresh_at: Instant,
    namespaces: BTreeSet<String>,
    watched: BTreeSet<String>,
    name: Option<String>, // discoverable under this one
    dialing: HashMap<ConnectionId, (Multiaddr, Then)>,
    asked: HashMap<OutboundRequestId, &'static str>, // of the directory: by which command
}

fn entry_of(registration: &Registration) -> Value {
    json!({
        "peer": registration.record.peer_id().to_string(),
        "namespace": registration.namespace.to_string(),
        "ttl": registration.ttl,
        "addrs": registration.record.addresses().iter().map(|a| a.to_string()).collect::<Vec<_>>(),
    })
}

/// What a cookie names; "*" is all namespaces (dusk.md §5).
fn space_of(cookie: &Cookie) -> String {
    cookie.namespace().map_or("*".into(), |ns| ns.to_string())
}

impl Client {
    fn relay(&self) -> Result<(Multiaddr, PeerId), Box<dyn Error>> {
        self.relay.clone().ok_or("no relay yet: reserve first".into())
    }

    fn circuit(&self, peer: PeerId) -> Result<Multiaddr, Box<dyn Error>> {
        let (addr, _) = self.relay()?;
        Ok(addr.with(Protocol::P2pCircuit).with(Protocol::P2p(peer)))
    }

    // -- the connection to the relay

    fn connect(&mut self) {
        let Some((addr, _)) = self.relay.clone() else { return };
        self.again_at = None;
        if let Err(err) = self.swarm.dial(addr) {
            fail("reserve", text_of(&err));
            self.come_back();
        }
    }

    fn come_back(&mut self) {
        emit("retrying", json!({"ms": self.backoff.as_millis() as u64}));
        self.again_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// RESERVE goes out at once, beside identify, ping and gossip; refused, it is not tried again
    /// before there is another connection (dusk.md §1.1, 3 and 8).
    fn on_relay_there(&mut self) {
        let Some((addr, peer)) = self.relay.clone() else { return };
        self.backoff = BACKOFF_MIN;
        self.swarm.behaviour_mut().gossipsub.add_explicit_peer(&peer);
        if let Some(id) = self.listener.take() {
            self.swarm.remove_listener(id);
        }
        (self.accepted, self.reserved) = (false, false);
        self.addrs.clear();
        match self.swarm.listen_on(addr.with(Protocol::P2pCircuit)) {
            Ok(id) => self.listener = Some(id),
            Err(err) => fail("reserve", text_of(&err)),
        }
    }

    fn on_relay_gone(&mut self) {
        (self.accepted, self.reserved) = (false, false);
        self.come_back();
    }

    fn on_maybe_reserved(&mut self) {
        if self.reserved || !self.accepted || self.addrs.is_empty() {
            return;
        }
        let Some((addr, relay)) = self.relay.clone() else { return };
        self.reserved = true;
        emit("reserved", json!({"relay": relay.to_string(), "addrs": self.addrs}));
        let own = addr.with(Protocol::P2pCircuit).with(Protocol::P2p(self.me));
        self.swarm.add_external_address(own);
        let profile = json!({"ProfileAnnounce": {"peer_id": self.me.to_string()}}).to_string();
        self.publish(wire::DIRECTORY, profile.into_bytes(), true);
        self.refresh();
    }

    /// dusk.md §1.1, 4 and 5.
    fn refresh(&mut self) {
        self.refresh_at = Instant::now() + self.refresh;
        for namespace in self.namespaces.clone() {
            self.register(&namespace, None);
        }
        for namespace in self.watched.clone() {
            self.discover(Some(&namespace));
        }
        if let Some(name) = self.name.clone() {
            self.tell_directory(name);
        }
    }

    // -- what it asks

    fn register(&mut self, namespace: &str, ttl: Option<u64>) {
        let Ok((_, relay)) = self.relay() else { return fail("register", "no relay".into()) };
        let Ok(space) = Namespace::new(namespace.into()) else {
            return fail("register", "the namespace is too long".into());
        };
        if let Err(err) = self.swarm.behaviour_mut().rendezvous.register(space, relay, ttl) {
            fail("register", err.to_string());
        }
    }

    fn discover(&mut self, namespace: Option<&str>) {
        let Ok((_, relay)) = self.relay() else { return fail("discover", "no relay".into()) };
        let space = namespace.map(|ns| Namespace::new(ns.into()).expect("a short namespace"));
        self.swarm.behaviour_mut().rendezvous.discover(space, None, None, relay);
    }

    fn ask_directory(&mut self, cmd: &'static str, request: DirectoryRequest) {
        let Ok((_, relay)) = self.relay() else { return fail(cmd, "no relay".into()) };
        let id = self.swarm.behaviour_mut().directory.send_request(&relay, request);
        self.asked.insert(id, cmd);
    }

    fn tell_directory(&mut self, display_name: String) {
        let relay_addr = self.circuit(self.me).map_or(String::new(), |addr| addr.to_string());
        self.ask_directory("dir-register", DirectoryRequest::Register { display_name, relay_addr });
    }

    /// `quietly`: what the client does by itself, where having said it already is no failure.
    fn publish(&mut self, topic: &str, data: Vec<u8>, quietly: bool) {
        let topic = gossipsub::IdentTopic::new(topic);
        match self.swarm.behaviour_mut().gossipsub.publish(topic.clone(), data) {
            Ok(id) if !quietly => {
                emit("published", json!({"topic": topic.to_string(), "id": id.to_string()}))
            }
            Err(err) if !quietly => fail("publish", err.to_string()),
            _ => {}
        }
    }

    /// Whoever is discovered is dialled, even if connected already (dusk.md §1.1, 6).
    fn dial_found(&mut self, peer: PeerId) {
        let Ok((_, relay)) = self.relay() else { return };
        if peer != self.me && peer != relay {
            if let Ok(addr) = self.circuit(peer) {
                let _ = self.swarm.dial(addr);
            }
        }
    }

    fn open(&mut self, addr: &str, then: Then) -> Result<(), Box<dyn Error>> {
        let addr: Multiaddr = addr.parse()?;
        if let Some(peer) = last_peer(&addr).filter(|peer| self.swarm.is_connected(peer)) {
            self.opened(peer, addr, then);
            return Ok(());
        }
        let opts = DialOpts::from(addr.clone());
        let id = opts.connection_id();
        self.swarm.dial(opts)?;
        self.dialing.insert(id, (addr, then));
        Ok(())
    }

    fn opened(&mut self, peer: PeerId, addr: Multiaddr, then: Then) {
        match then {
            Then::Dial => emit("dialed", json!({"peer": peer.to_string(), "via": addr.to_string()})),
            Then::Transfer { total, seed } => transfer(self.control.clone(), peer, total, seed),
        }
    }

    // -- what it hears

    fn on_directory(&mut self, event: rr::Event<DirectoryRequest, DirectoryResponse>) {
        let (id, answer) = match event {
            rr::Event::Message { message: rr::Message::Response { request_id, response }, .. } => {
                (request_id, Ok(response))
            }
            rr::Event::OutboundFailure { request_id, error, .. } => (request_id, Err(error)),
            _ => return,
        };
        let cmd = self.asked.remove(&id).unwrap_or("directory");
        match answer {
            Ok(DirectoryResponse::Ok) => emit(cmd, json!({"ok": true})),
            Ok(DirectoryResponse::Error(text)) => emit(cmd, json!({"ok": false, "what": text})),
            Ok(DirectoryResponse::Results(rows)) => {
                emit(cmd, json!({"ok": true, "results": rows}));
                for row in rows.iter().filter(|row| row.peer_id != self.me.to_string()) {
                    if let Ok(addr) = row.relay_addr.parse::<Multiaddr>() {
                        let _ = self.swarm.dial(addr);
                    }
                }
            }
            Err(err) => fail(cmd, err.to_string()),
        }
    }

    fn on_rendezvous(&mut self, event: rendezvous::client::Event) {
        use rendezvous::client::Event;
        match event {
            Event::Registered { ttl, namespace, .. } => {
                emit("registered", json!({"namespace": namespace.to_string(), "ttl": ttl}))
            }
            Event::RegisterFailed { namespace, error, .. } => emit(
                "register-failed",
                json!({"namespace": namespace.to_string(), "what": format!("{error:?}")}),
            ),
            Event::Discovered { registrations, cookie, .. } => {
                let found: Vec<Value> = registrations.iter().map(entry_of).collect();
                emit("discovered", json!({"namespace": space_of(&cookie), "registrations": found}));
                for registration in &registrations {
                    self.dial_found(registration.record.peer_id());
                }
            }
            Event::DiscoverFailed { namespace, error, .. } => emit(
                "discover-failed",
                json!({"namespace": namespace.map(|ns| ns.to_string()), "what": format!("{error:?}")}),
            ),
            Event::Expired { .. } => {}
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => emit(
                "gossip",
                json!({"topic": message.topic.to_string(), "id": message_id.to_string(),
                    "author": message.source.map(|peer| peer.to_string()),
                    "from": propagation_source.to_string(), "bytes": message.data.len(),
                    "sha256": hex(Sha256::new_with_prefix(&message.data)),
                    "data": String::from_utf8_lossy(&message.data[..message.data.len().min(200)])}),
            ),
            gossipsub::Event::Subscribed { peer_id, topic } => {
                emit("subscribed", json!({"peer": peer_id.to_string(), "topic": topic.to_string()}))
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                emit("no-gossip", json!({"peer": peer_id.to_string()}))
            }
            gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        for addr in &info.listen_addrs {
            self.swarm.behaviour_mut().kad.add_address(&peer_id, addr.clone());
        }
        emit("identified", json!({
            "peer": peer_id.to_string(), "key": info.public_key.to_peer_id().to_string(),
            "version": info.protocol_version, "agent": info.agent_version,
            "protocols": info.protocols.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
            "addrs": info.listen_addrs.iter().map(|a| a.to_string()).collect::<Vec<_>>(),
            "observed": info.observed_addr.to_string(),
        }));
    }

    fn on_reservation(&mut self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event {
            if renewal {
                return emit("renewed", json!({"relay": relay_peer_id.to_string()}));
            }
            self.accepted = true;
            self.on_maybe_reserved();
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Relay(event) => self.on_reservation(event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(ping::Event { peer, result, .. }) => match result {
                Ok(rtt) => emit("pinged",
                    json!({"peer": peer.to_string(), "us": rtt.as_micros() as u64})),
                Err(err) => emit("ping-failed",
                    json!({"peer": peer.to_string(), "what": err.to_string()})),
            },
            BehaviourEvent::Gossipsub(event) => self.on_gossip(event),
            BehaviourEvent::Rendezvous(event) => self.on_rendezvous(event),
            BehaviourEvent::Directory(event) => self.on_directory(event),
            BehaviourEvent::Turn(event) => answer("credentials", event),
            BehaviourEvent::Gifs(event) => answer("gif", event),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: ConnectedPoint) {
        let (via, relayed) = (endpoint.get_remote_address(), endpoint.is_relayed());
        emit("connected",
            json!({"peer": peer.to_string(), "via": via.to_string(), "relayed": relayed}));
        if !relayed && self.relay.as_ref().is_some_and(|(_, relay)| *relay == peer) {
            self.on_relay_there();
        }
        // One for every connection, circuits included (dusk.md §10.3).
        let request = json!({"RequestSync": {"peer_id": self.me.to_string()}}).to_string();
        self.publish(wire::SYNC, request.into_bytes(), true);
        if let Some((addr, then)) = self.dialing.remove(&id) {
            self.opened(peer, addr, then);
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, endpoint)
            }
            SwarmEvent::ConnectionClosed { peer_id, endpoint, cause, num_established, .. } => {
                let via = endpoint.get_remote_address().to_string();
                emit("disconnected", json!({"peer": peer_id.to_string(), "via": via,
                    "left": num_established, "cause": cause.map(|err| text_of(&err))}));
                let ours = self.relay.as_ref().is_some_and(|(_, relay)| *relay == peer_id);
                if ours && num_established == 0 {
                    self.on_relay_gone();
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some((_, then)) = self.dialing.remove(&connection_id) {
                    let cmd = match then { Then::Dial => "dial", _ => "transfer" };
                    return fail(cmd, dial_text(&error));
                }
                let ours = self.relay.as_ref().is_some_and(|(_, relay)| Some(*relay) == peer_id);
                emit("dial-failed", json!({"peer": peer_id.map(|peer| peer.to_string()),
                    "what": dial_text(&error)}));
                let gone = peer_id.is_some_and(|peer| !self.swarm.is_connected(&peer));
                if ours && gone && self.again_at.is_none() {
                    self.come_back();
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if self.listener == Some(listener_id) {
                    self.addrs.push(address.to_string());
                    self.on_maybe_reserved();
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if self.listener == Some(listener_id) {
                    self.listener = None;
                    let what = reason.err().map_or("closed".into(), |err| format!("{err:?}"));
                    let ev = if self.reserved { "reservation-lost" } else { "reservation-refused" };
                    (self.accepted, self.reserved) = (false, false);
                    emit(ev, json!({"what": what}));
                }
            }
            _ => {}
        }
    }

    // -- what it is told

    fn on_command(&mut self, cmd: &str, arg: &str) -> Result<(), Box<dyn Error>> {
        let words: Vec<&str> = arg.split_whitespace().collect();
        match (cmd, words.as_slice()) {
            ("reserve", [addr]) => {
                let addr: Multiaddr = addr.parse()?;
                let peer = last_peer(&addr).ok_or("the relay's address has no /p2p/ at its end")?;
                self.relay = Some((addr, peer));
                self.connect();
            }
            // queued: now, and at every refresh
            ("namespace", [namespace]) => {
                self.namespaces.insert(namespace.to_string());
                if self.reserved {
                    self.register(namespace, None);
                }
            }
            ("watch", [namespace]) => {
                self.watched.insert(namespace.to_string());
                if self.reserved {
                    self.discover(Some(namespace));
                }
            }
            ("name", _) => {
                self.name = (!arg.is_empty()).then(|| arg.to_string());
                if let Some(name) = self.name.clone().filter(|_| self.reserved) {
                    self.tell_directory(name);
                }
            }
            // once
            ("register", [namespace]) => self.register(namespace, None),
            ("register", [namespace, ttl]) => self.register(namespace, Some(ttl.parse()?)),
            ("unregister", [namespace]) => {
                let (_, relay) = self.relay()?;
                let space = Namespace::new(namespace.to_string())?;
                self.swarm.behaviour_mut().rendezvous.unregister(space, relay);
                emit("unregistered", json!({"namespace": namespace}));
            }
            ("discover", []) => self.discover(None),
            ("discover", [namespace]) => self.discover(Some(namespace)),
            ("dir-register", _) => self.tell_directory(arg.into()),
            ("dir-search", _) => {
                self.ask_directory("dir-search", DirectoryRequest::Search { query: arg.into() })
            }
            ("dir-remove", []) => self.ask_directory("dir-remove", DirectoryRequest::Remove),
            ("credentials", []) => {
                let (_, relay) = self.relay()?;
                let request = TurnRequest { peer_id: self.me.to_string() };
                self.swarm.behaviour_mut().turn.send_request(&relay, request);
            }
            ("gif", [kind, query @ ..]) => {
                let (_, relay) = self.relay()?;
                let (kind, query) = (kind.to_string(), query.join(" "));
                let request = GifRequest { kind, query, limit: 20 };
                self.swarm.behaviour_mut().gifs.send_request(&relay, request);
            }
            ("publish", [topic, _, ..]) => {
                let data = arg.trim_start()[topic.len()..].trim_start();
                self.publish(topic, data.into(), false)
            }
            ("publish-bytes", [topic, bytes, letter]) => {
                self.publish(topic, letter.repeat(bytes.parse()?).into_bytes(), false)
            }
            ("dial", [addr]) => self.open(addr, Then::Dial)?,
            ("transfer", [addr, total, seed]) => {
                let then = Then::Transfer { total: total.parse()?, seed: seed.parse()? };
                self.open(addr, then)?
            }
            ("hangup", [peer]) => {
                let _ = self.swarm.disconnect_peer_id(peer.parse()?);
                emit("hungup", json!({"peer": peer}));
            }
            _ => return Err("unknown command".into()),
        }
        Ok(())
    }
}

/// An answer that is told as it is.
fn answer<Req: std::fmt::Debug, Resp: serde::Serialize + std::fmt::Debug>(
    cmd: &'static str,
    event: rr::Event<Req, Resp>,
) {
    match event {
        rr::Event::Message { message: rr::Message::Response { response, .. }, .. } => {
            emit(cmd, serde_json::to_value(&response).expect("a JSON object"))
        }
        rr::Event::OutboundFailure { error, .. } => fail(cmd, error.to_string()),
        _ => {}
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}

pub async fn main(key: Keypair, refresh: Duration) {
    let mut swarm = new_swarm(key);
    let mut control = swarm.behaviour().stream.new_control();
    tokio::spawn(serve(control.accept(XFER).expect("registered once")));
    for topic in [wire::SYNC, wire::DIRECTORY] {
        let topic = gossipsub::IdentTopic::new(topic);
        swarm.behaviour_mut().gossipsub.subscribe(&topic).expect("a subscription");
    }
    let me = *swarm.local_peer_id();
    let mut client = Client {
        swarm,
        control,
        me,
        relay: None,
        listener: None,
        accepted: false,
        addrs: vec![],
        reserved: false,
        backoff: BACKOFF_MIN,
        again_at: None,
        refresh,
        refresh_at: Instant::now(),
        namespaces: BTreeSet::new(),
        watched: BTreeSet::new(),
        name: None,
        dialing: HashMap::new(),
        asked: HashMap::new(),
    };
    let mut commands = commands();
    emit("id", json!({"peer": me.to_string(), "client": "dusk"}));
    loop {
        let refresh_at = client.reserved.then_some(client.refresh_at);
        tokio::select! {
            line = commands.recv() => {
                let line = line.unwrap_or("quit".into());
                let (cmd, arg) = line.split_once(' ').unwrap_or((line.as_str(), ""));
                match cmd {
                    "" => {}
                    "quit" => std::process::exit(0),
                    _ => if let Err(err) = client.on_command(cmd, arg) {
                        fail(cmd, err.to_string());
                    }
                }
            }
            event = client.swarm.select_next_some() => client.on_swarm(event),
            _ = until(client.again_at) => client.connect(),
            _ = until(refresh_at) => client.refresh(),
        }
    }
}
