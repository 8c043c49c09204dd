//! turn-interop SERVER USER PASSWORD sha1|sha256 [userhash]: two allocations by turn-client-proto that
//! exchange datagrams through a permission, then through a channel; says `done` as one JSON line, or
//! ends with an error.
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Clock};

use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{Instant, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

const DATAGRAMS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);
const TURN: Duration = Duration::from_millis(5);

struct Client {
    socket: UdpSocket,
    turn: TurnClientUdp,
    began: Clock,
    events: VecDeque<TurnEvent>,
    arrived: VecDeque<(Vec<u8>, SocketAddr)>,
}

impl Client {
    fn new(server: SocketAddr, config: TurnConfig) -> Self {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).expect("bind");
        socket.connect(server).expect("connect");
        socket.set_read_timeout(Some(TURN)).expect("timeout");
        let turn = TurnClientUdp::allocate(socket.local_addr().expect("address"), server, config);
        Client {
            socket,
            turn,
            began: Clock::now(),
            events: VecDeque::new(),
            arrived: VecDeque::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.began.elapsed().as_nanos() as i64 + 1)
    }

    /// Sends what is due, waits a little for what comes.
    fn run(&mut self) {
        let now = self.now();
        if matches!(self.turn.poll(now), TurnPollRet::Closed) {
            panic!("the client has closed");
        }
        while let Some(transmit) = self.turn.poll_transmit(now) {
            self.socket.send(&transmit.data).expect("send");
        }
        let mut buffer = [0; 2048];
        if let Ok(n) = self.socket.recv(&mut buffer) {
            let transmit = Transmit {
                data: &buffer[..n],
                transport: TransportType::Udp,
                from: self.turn.remote_addr(),
                to: self.turn.local_addr(),
            };
            if let TurnRecvRet::PeerData(data) = self.turn.recv(transmit, self.now()) {
                self.arrived.push_back((data.data().to_vec(), data.peer));
            }
        }
        while let Some(event) = self.turn.poll_event() {
            self.events.push_back(event);
        }
    }

    fn wait<T>(&mut self, what: &str, ready: impl Fn(&mut Self) -> Option<T>) -> T {
        let end = Clock::now() + PATIENCE;
        while Clock::now() < end {
            if let Some(got) = ready(self) {
                return got;
            }
            self.run();
        }
        panic!("no {what}");
    }

    fn event<T>(&mut self, what: &str, is: impl Fn(&TurnEvent) -> Option<T>) -> T {
        self.wait(what, |c| {
            let event = c.events.pop_front()?;
            Some(is(&event).unwrap_or_else(|| panic!("{event:?} instead of {what}")))
        })
    }

    fn send(&mut self, to: SocketAddr, data: &[u8]) {
        let now = self.now();
        let sent = self
            .turn
            .send_to(TransportType::Udp, to, data, now)
            .expect("send_to");
        if let Some(build) = sent {
            self.socket.send(&build.build().data).expect("send");
        }
    }
}

fn exchange(pair: &mut [Client; 2], relays: [SocketAddr; 2]) {
    for n in 0..DATAGRAMS {
        let (from, to) = (n % 2, 1 - n % 2);
        let data: Vec<u8> = (0..1 + n * 6 % 1200).map(|i| (i * 31 + n) as u8).collect();
        pair[from].send(relays[to], &data);
        let (got, source) = pair[to].wait("datagram", |c| c.arrived.pop_front());
        assert!(
            got == data,
            "datagram {n}: {} bytes differ from the {} sent",
            got.len(),
            data.len()
        );
        assert_eq!(source, relays[from]);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let server: SocketAddr = args[0].parse().expect("HOST:PORT");
    let mut pair = [0, 1].map(|_| {
        let mut config = TurnConfig::new(TurnCredentials::new(&args[1], &args[2]));
        config.set_supported_integrity(match args[3].as_str() {
            "sha256" => IntegrityAlgorithm::Sha256,
            _ => IntegrityAlgorithm::Sha1,
        });
        config.set_anonymous_username(match args.get(4).map(String::as_str) {
            Some("userhash") => Feature::Required,
            _ => Feature::Disabled,
        });
        Client::new(server, config)
    });
    let relays = [0, 1].map(|i| {
        pair[i].event("allocation", |event| match event {
            TurnEvent::AllocationCreated(_, relay) => Some(*relay),
            _ => None,
        })
    });
    for i in 0..2 {
        let now = pair[i].now();
        pair[i]
            .turn
            .create_permission(TransportType::Udp, relays[1 - i].ip(), now)
            .expect("permission");
        pair[i].event("permission", |event| {
            matches!(event, TurnEvent::PermissionCreated(..)).then_some(())
        });
    }
    exchange(&mut pair, relays);
    for i in 0..2 {
        let now = pair[i].now();
        pair[i]
            .turn
            .bind_channel(TransportType::Udp, relays[1 - i], now)
            .expect("channel");
        pair[i].event("channel", |event| {
            matches!(event, TurnEvent::ChannelCreated(..)).then_some(())
        });
    }
    exchange(&mut pair, relays);
    for client in &mut pair {
        let now = client.now();
        client.turn.delete(now).expect("delete");
        while let Some(transmit) = client.turn.poll_transmit(now) {
            client.socket.send(&transmit.data).expect("send");
        }
    }
    println!(
        "{{\"ev\":\"done\",\"arrived\":{},\"relays\":[\"{}\",\"{}\"]}}",
        2 * DATAGRAMS,
        relays[0],
        relays[1]
    );
}
