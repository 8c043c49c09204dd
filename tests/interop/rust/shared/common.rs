//! What every rust-libp2p client here has: the line protocol of tests/interop/README.md and its
//! transfer. Each crate compiles it against its own libp2p.

use std::error::Error;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;

pub const XFER: StreamProtocol = StreamProtocol::new("/sluice/xfer/1");
const CHUNK_BYTES: usize = 64 * 1024;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

pub fn emit(ev: &str, mut fields: Value) {
    fields["ev"] = json!(ev);
    println!("{fields}"); // stdout is line buffered, one call per line
}

pub fn text_of(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut inner = err.source();
    while let Some(e) = inner {
        text = format!("{text}: {e}");
        inner = e.source();
    }
    text
}

/// rust-libp2p turns a refusal into an error type; this is the way back to the number.
pub fn status_of(text: &str) -> u32 {
    let known = [
        ("Reservation refused", 200),
        ("Remote reported resource limit exceeded", 201),
        ("Remote denied permission", 202),
        ("Relay failed to connect to destination", 203),
        ("Relay has no reservation for destination", 204),
        ("NoReservation", 204), // and their names in debug text, see dial_text
        ("ConnectionFailed", 203),
        ("ResourceLimitExceeded", 201),
        ("PermissionDenied", 202),
    ];
    known.iter().find(|(what, _)| text.contains(what)).map_or(0, |(_, status)| *status)
}

/// The relay's answer to a dial hides inside an io::Error, whose source() skips it.
pub fn dial_text(error: &DialError) -> String {
    let mut text = text_of(error);
    if let DialError::Transport(tried) = error {
        for (_, err) in tried {
            text = format!("{text}: {}: {err:?}", text_of(err));
        }
    }
    text
}

pub fn fail(cmd: &str, text: String) {
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

pub fn hex(hash: Sha256) -> String {
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

pub async fn serve(mut incoming: libp2p_stream::IncomingStreams) {
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

async fn open_and_exchange(mut control: libp2p_stream::Control, peer: PeerId, total: u64, seed: u32) {
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

pub fn transfer(control: libp2p_stream::Control, peer: PeerId, total: u64, seed: u32) {
    tokio::spawn(async move {
        let transfer = open_and_exchange(control, peer, total, seed);
        if tokio::time::timeout(COMMAND_TIMEOUT, transfer).await.is_err() {
            fail("transfer", "timed out".into());
        }
    });
}

pub fn last_peer(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The lines of stdin; none when it ends.
pub fn commands() -> mpsc::Receiver<String> {
    let (tx, commands) = mpsc::channel::<String>(64);
    tokio::spawn(async move {
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if tx.send(line).await.is_err() {
                break;
            }
        }
    });
    commands
}
