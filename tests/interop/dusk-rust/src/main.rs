//! The Dusk client as its relay sees it (dusk.md §1.1), with the crates that it is locked to, over
//! the line protocol of tests/interop/README.md; and a relay of the same crates, to ask whether a
//! red test is red there, too.
//!
//!   interop-dusk [seed=TEXT] [refresh-ms=N]      the client
//!   interop-dusk relay data=DIR listen=MULTIADDR  the relay
//!
//! The same seed is the same peer id.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::identity::Keypair;
use sha2::{Digest, Sha256};

mod client;
#[path = "../../rust/shared/common.rs"]
mod common;
mod relay;
mod wire;

fn key_of(seed: Option<&String>) -> Keypair {
    match seed {
        None => Keypair::generate_ed25519(),
        Some(text) => {
            let mut bytes: [u8; 32] = Sha256::digest(text).into();
            Keypair::ed25519_from_bytes(&mut bytes).expect("32 bytes")
        }
    }
}

#[tokio::main]
async fn main() {
    wire::check_ids();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options: HashMap<String, String> = args
        .iter()
        .filter_map(|arg| arg.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if args.first().is_some_and(|arg| arg == "relay") {
        return relay::main(&options["data"], &options["listen"]).await;
    }
    let refresh_ms = options.get("refresh-ms").map_or(120_000, |n| n.parse().expect("a number"));
    client::main(key_of(options.get("seed")), Duration::from_millis(refresh_ms)).await
}
