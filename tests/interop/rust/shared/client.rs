//! The rust-libp2p client of the interoperability tests: a line protocol on stdin, JSON lines on
//! stdout, as tests/interop/README.md describes it. Both crates compile this one file, each
//! against its own libp2p; what differs (`new_swarm`, `relay_event`, `CLIENT`) is in their main.rs.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{dial_opts::DialOpts, ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{relay, Multiaddr, PeerId, Stream, StreamProtocol};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;

use crate::{new_swarm, relay_event, Behaviour, BehaviourEvent, CLIENT};

const XFER: StreamProtocol = StreamProtocol::new("/sluice/xfer/1");
const CHUNK_BYTES: usize = 64 * 1024;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

pub fn emit(ev: &str, mut fields: Value) {
    fields["ev"] = json!(ev);
    println!("{fields}"); // stdout is line buffered, one call per line
}

fn text_of(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut inner = err.source();
    while let Some(e) = inner {
        text = format!("{text}: {e}");
        inner = e.source();
    }
    text
}

/// rust-libp2p turns a refusal into an error type; this is the way back to the number.
fn status_of(text: &str) -> u32 {
    let known = [
        ("Reservation refused", 200),
        ("Remote reported resource limit exceeded", 201),
        ("Remote denied permission", 202),
        ("Relay failed to connect to destination", 203),
        ("Relay has no reservation for destination", 204),
    ];
    known.iter().find(|(what, _)| text.contains(what)).map_or(0, |(_, status)| *status)
}

fn fail(cmd: &str, text: String) {
    emit("error", json!({"cmd": cmd, "status": status_of(&text), "what": text}));
}

/// xorshift32, little-endian words: the same bytes in every client.
struct Stream32(u32);

impl Stream32 {
    fn new(seed: u32) -> Self {
        Stream32(if seed == 0 { 0x9e37_79b9 } else { seed })
    }

    fn fill(&mut self, buf: &mut [u8]) {
        for word in buf.chunks_exact_mut(4) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Both directions at once. The listener sends the complement of the dialer's seed, so that an
/// echo cannot pass for a transfer.
async fn exchange(stream: Stream, role: &str, peer: PeerId, total: u64, seed: u32) {
    let started = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        let (mut gen, mut hash, mut left) = (Stream32::new(seed), Sha256::new(), total);
        let mut buf = vec![0u8; CHUNK_BYTES];
        while left > 0 {
            let n = left.min(CHUNK_BYTES as u64) as usize;
            gen.fill(&mut buf);
            hash.update(&buf[..n]);
            writer.write_all(&buf[..n]).await?;
            left -= n as u64;
        }
        writer.close().await?;
        Ok::<_, std::io::Error>(hash)
    };
    let receiving = async {
        let (mut hash, mut received) = (Sha256::new(), 0u64);
        let mut buf = vec![0u8; CHUNK_BYTES];
        loop {
            let n = reader.read(&mut buf).await?;
            if n == 0 {
                return Ok::<_, std::io::Error>((hash, received));
            }
            hash.update(&buf[..n]);
            received += n as u64;
        }
    };
    match futures::try_join!(sending, receiving) {
        Ok((sent, (hash, received))) => emit(
            "transferred",
            json!({"role": role, "peer": peer.to_string(), "sent": total,
                "sent_sha256": hex(sent), "received": received, "received_sha256": hex(hash),
                "ms": started.elapsed().as_millis() as u64}),
        ),
        Err(err) => emit(
            "error",
            json!({"cmd": "transfer", "role": role, "status": 0, "what": err.to_string()}),
        ),
    }
}

async fn serve(mut incoming: libp2p_stream::IncomingStreams) {
    while let Some((peer, mut stream)) = incoming.next().await {
        tokio::spawn(async move {
            let mut head = [0u8; 12];
            if let Err(err) = stream.read_exact(&mut head).await {
                return fail("transfer", err.to_string());
            }
            let total = u64::from_be_bytes(head[..8].try_into().unwrap());
            let seed = !u32::from_be_bytes(head[8..].try_into().unwrap());
            exchange(stream, "listener", peer, total, seed).await;
        });
    }
}

async fn transfer(mut control: libp2p_stream::Control, peer: PeerId, total: u64, seed: u32) {
    let opening = async {
        let mut stream = control.open_stream(peer, XFER).await.map_err(|e| text_of(&e))?;
        let mut head = total.to_be_bytes().to_vec();
        head.extend(seed.to_be_bytes());
        stream.write_all(&head).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(stream)
    };
    match opening.await {
        Ok(stream) => exchange(stream, "dialer", peer, total, seed).await,
        Err(text) => fail("transfer", text),
    }
}

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

fn last_peer(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
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
                let transfer = transfer(self.control.clone(), peer, total, seed);
                tokio::spawn(async move {
                    if tokio::time::timeout(COMMAND_TIMEOUT, transfer).await.is_err() {
                        fail("transfer", "timed out".into());
                    }
                });
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
            let mut text = text_of(&error);
            if let DialError::Transport(tried) = &error {
                for (_, err) in tried {
                    text = format!("{text}: {}", text_of(err));
                    // The relay's answer hides inside an io::Error, whose source() skips it.
                    text = format!("{text}: {err:?}");
                }
            }
            for (what, status) in [("NoReservation", 204), ("ConnectionFailed", 203),
                ("ResourceLimitExceeded", 201), ("PermissionDenied", 202)]
            {
                if status_of(&text) == 0 && text.contains(what) {
                    return emit("error", json!({"cmd": then.name(), "status": status, "what": text}));
                }
            }
            fail(then.name(), text);
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
    let (tx, mut commands) = mpsc::channel::<String>(64);
    tokio::spawn(async move {
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if tx.send(line).await.is_err() {
                break;
            }
        }
    });
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
