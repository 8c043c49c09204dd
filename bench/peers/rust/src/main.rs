// SPDX-License-Identifier: GPL-3.0-or-later
//! The rust-libp2p relay of the benches: TCP, Noise, yamux, circuit relay v2 with every limit lifted,
//! identify and ping as every relay has them. As many worker threads as there are usable cores.
//!
//!     bench-relay-rust HOST PORT
//!
//! Says `relay address: MULTIADDR` once it listens.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    identify, noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux, Multiaddr,
};

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn limits() -> relay::Config {
    relay::Config {
        max_reservations: 1 << 20,
        max_reservations_per_peer: 1 << 20,
        reservation_duration: Duration::from_secs(3600),
        reservation_rate_limiters: Vec::new(),
        max_circuits: 1 << 20,
        max_circuits_per_peer: 1 << 20,
        max_circuit_duration: Duration::from_secs(u32::MAX as u64),
        max_circuit_bytes: 0, // unlimited
        circuit_src_rate_limiters: Vec::new(),
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (host, port) = match (args.next(), args.next()) {
        (Some(host), Some(port)) => (host, port),
        _ => {
            eprintln!("usage: bench-relay-rust HOST PORT");
            std::process::exit(2);
        }
    };
    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a TCP transport")
        .with_behaviour(|key| Behaviour {
            relay: relay::Behaviour::new(key.public().to_peer_id(), limits()),
            identify: identify::Behaviour::new(identify::Config::new(
                "/bench/1".into(),
                key.public(),
            )),
            ping: ping::Behaviour::default(),
        })
        .expect("behaviours")
        // Idle peers shall be measured, not thrown out.
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    let addr: Multiaddr = format!("/ip4/{host}/tcp/{port}").parse().expect("HOST and PORT");

    swarm.listen_on(addr).expect("a free port");
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            // Without an external address a reservation would carry none.
            swarm.add_external_address(address.clone());
            println!("relay address: {address}/p2p/{}", swarm.local_peer_id());
        }
    }
}
