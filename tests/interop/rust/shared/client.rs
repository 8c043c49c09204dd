//! The rust-libp2p client of the interoperability tests: a line protocol on stdin, JSON lines on
//! stdout, as tests/interop/README.md describes it. Both crates compile this one file, each
//! against its own libp2p; what differs (`new_swarm`, `relay_event`, `CLIENT`) is in their main.rs.

use std::collections::HashMap;
use std::error::Error;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{dial_opts::DialOpts, ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{relay, Multiaddr, PeerId};
use serde_json::json;

#[path = "common.rs"]
mod common;

use common::{commands, dial_text, emit, fail, last_peer, serve, text_of, transfer, XFER};

use crate::{new_swarm, relay_event, Behaviour, BehaviourEvent, CLIENT};

enum Then {
    Reserve,
    Dial,
    Transfer { total: u64, seed: u32 },
}

impl Then {
    fn name(&self) -> &'static str {
        match self {
            Then::Reserve => "reserve",
            Then::Dial => "dial",
            Then::Transfer { .. } => "transfer",
        }
    }
}

struct Listening {
    relay: PeerId,
    addrs: Vec<String>,
    accepted: bool,
    reported: bool,
}

struct Client {
    swarm: Swarm<Behaviour>,
    control: libp2p_stream::Control,
    dialing: HashMap<ConnectionId, (Multiaddr, Then)>,
    listening: HashMap<ListenerId, Listening>,
}

impl Client {
    fn open(&mut self, addr: &str, then: Then) {
        let addr: Multiaddr = match addr.parse() {
            Ok(addr) => addr,
            Err(err) => return fail(then.name(), format!("{err}")),
        };
        if let Some(peer) = last_peer(&addr).filter(|peer| self.swarm.is_connected(peer)) {
            return self.opened(peer, addr, then);
        }
        let opts = DialOpts::from(addr.clone());
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dialing.insert(id, (addr, then))),
            Err(err) => fail(then.name(), text_of(&err)),
        }
    }

    fn opened(&mut self, peer: PeerId, addr: Multiaddr, then: Then) {
        match then {
            Then::Dial => emit("dialed", json!({"peer": peer.to_string(), "via": addr.to_string()})),
            Then::Transfer { total, seed } => {
                transfer(self.control.clone(), peer, total, seed)
            }
            Then::Reserve => self.listen(peer, addr),
        }
    }

    fn listen(&mut self, relay: PeerId, mut addr: Multiaddr) {
        if last_peer(&addr).is_none() {
            addr.push(Protocol::P2p(relay));
        }
        addr.push(Protocol::P2pCircuit);
        match self.swarm.listen_on(addr) {
            Ok(id) => {
                let waiting =
                    Listening { relay, addrs: vec![], accepted: false, reported: false };
                self.listening.insert(id, waiting);
            }
            Err(err) => fail("reserve", text_of(&err)),
        }
    }

    /// The acceptance and the addresses arrive as two events, in either order.
    fn report_reserved(&mut self) {
        for l in self.listening.values_mut() {
            if l.accepted && !l.addrs.is_empty() && !l.reported {
                l.reported = true;
                emit("reserved", json!({"relay": l.relay.to_string(), "addrs": l.addrs}));
            }
        }
    }

    fn on_relay(&mut self, event: relay::client::Event) {
        let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event
        else {
            return;
        };
        if renewal {
            return emit("renewed", json!({"relay": relay_peer_id.to_string()}));
        }
        for l in self.listening.values_mut().filter(|l| l.relay == relay_peer_id) {
            l.accepted = true;
        }
        self.report_reserved();
    }

    fn on_dial_error(&mut self, id: ConnectionId, error: DialError) {
        if let Some((_, then)) = self.dialing.remove(&id) {
            fail(then.name(), dial_text(&error));
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => {
                if let Some(event) = relay_event(event) {
                    self.on_relay(event);
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let via = endpoint.get_remote_address().to_string();
                emit("connected", json!({"peer": peer_id.to_string(), "via": via}));
                if let Some((addr, then)) = self.dialing.remove(&connection_id) {
                    self.opened(peer_id, addr, then);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, endpoint, cause, .. } => {
                let via = endpoint.get_remote_address().to_string();
                let cause = cause.map(|err| text_of(&err));
                emit("disconnected",
                    json!({"peer": peer_id.to_string(), "via": via, "cause": cause}));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, error)
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Some(l) = self.listening.get_mut(&listener_id) {
                    l.addrs.push(address.to_string());
                }
                self.report_reserved();
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let Some(l) = self.listening.remove(&listener_id) else { return };
                let text = reason.err().map_or("closed".to_string(), |err| {
                    format!("{}: {err:?}", text_of(&err))
                });
                if l.reported {
                    emit("reservation-lost",
                        json!({"relay": l.relay.to_string(), "what": text}));
                } else {
                    fail("reserve", text);
                }
            }
            _ => {}
        }
    }

    fn on_command(&mut self, words: &[&str]) -> Result<(), Box<dyn Error>> {
        match words {
            ["reserve", addr] => self.open(addr, Then::Reserve),
            ["dial", addr] => self.open(addr, Then::Dial),
            ["transfer", addr, total, seed] => {
                let (total, seed) = (total.parse()?, seed.parse()?);
                self.open(addr, Then::Transfer { total, seed })
            }
            ["hangup", peer] => {
                let _ = self.swarm.disconnect_peer_id(peer.parse()?);
                emit("hungup", json!({"peer": peer}));
            }
            _ => return Err(format!("unknown command: {}", words.join(" ")).into()),
        }
        Ok(())
    }
}

pub async fn main() {
    let swarm = new_swarm();
    let mut control = swarm.behaviour().stream.new_control();
    tokio::spawn(serve(control.accept(XFER).expect("registered once")));
    let peer = swarm.local_peer_id().to_string();
    let mut client =
        Client { swarm, control, dialing: HashMap::new(), listening: HashMap::new() };
    let mut commands = commands();
    emit("id", json!({"peer": peer, "client": CLIENT}));
    loop {
        tokio::select! {
            line = commands.recv() => {
                let line = line.unwrap_or("quit".into());
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    [] => {}
                    ["quit"] => std::process::exit(0),
                    words => if let Err(err) = client.on_command(words) {
                        fail(words[0], err.to_string());
                    }
                }
            }
            event = client.swarm.select_next_some() => client.on_swarm(event),
        }
    }
}
