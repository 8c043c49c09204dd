"""What an adversary finds at the edges of the TURN engine: where two features meet, and at the
greatest lengths that the protocols allow. The server goes on, for him and for others."""

import os
import socket
import struct
import time

import pytest

from relay import next_ip
from turn import (ALLOCATE, BINDING, CONNECT, CONNECTION_ATTEMPT, EVEN_PORT, INDICATION, REQUEST,
                  REQUESTED_ADDRESS_FAMILY,
                  RESERVATION_TOKEN, SUCCESS, TCP_TRANSPORT, UDP_TRANSPORT, XOR_PEER_ADDRESS,
                  UdpPeer, channel_data, family, header, message, peer, type_of)

BOTH = {'listen': ('127.0.0.1:0', '[::1]:0'), 'allow': ('127.0.0.0/8', '::1/128')}
V6_RELAY = family(REQUESTED_ADDRESS_FAMILY, 2)
PAIR = EVEN_PORT, b'\x80'
needs_raw = pytest.mark.skipif(os.geteuid() != 0, reason='raw sockets need root')


def alive(turnd):
    turnd.udp().allocate().close()


@pytest.mark.sanitize
def test_turn_52_a_token_for_a_port_of_ipv6_gives_that_port(turn_start):
    turnd = turn_start(**BOTH)
    first = turnd.udp().allocate(V6_RELAY, PAIR)
    second = turnd.udp()
    second.allocate((RESERVATION_TOKEN, first.granted.get(RESERVATION_TOKEN)))
    assert second.relayed == (first.relayed[0], first.relayed[1] + 1)
    assert len(second.granted.relays) == 1
    alive(turnd)


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
@pytest.mark.parametrize('ip, longest', [('127.0.0.1', 65507), ('::1', 65527)],
                         ids=['ipv4', 'ipv6'])
@pytest.mark.parametrize('channel', [False, True], ids=['data', 'channel'])
def test_turn_71_the_longest_datagram_of_a_peer_ends_nothing(turn_start, kind, ip, longest,
                                                             channel):
    turnd = turn_start(**BOTH)
    client = turnd.client(kind).allocate(*((V6_RELAY,) if ':' in ip else ()))
    with socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET,
                       socket.SOCK_DGRAM) as sender:
        sender.bind((next_ip() if ip == '127.0.0.1' else ip, 0))
        if channel:
            assert client.bind_channel(0x4000, sender.getsockname()[:2]).code == 0
        else:
            assert client.permit(sender.getsockname()[0]).code == 0
        for n in (longest, longest - 3, longest - 40, 65000):
            sender.sendto(bytes(n), client.relayed)
            client.data(0.3)
        sender.sendto(b'and on', client.relayed)
        while True:
            got = client.data()
            assert got is not None
            if got[1] == b'and on':
                break
    alive(turnd)


def forged(source, to, *payloads):
    """Datagrams whose source is whatever one likes."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        for payload in payloads:
            udp = struct.pack('!HHHH', source[1], to[1], 8 + len(payload), 0) + payload
            head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                               socket.inet_aton(source[0]), socket.inet_aton(to[0]))
            raw.sendto(head + udp, (to[0], 0))


@needs_raw
def test_turn_a_source_port_of_0_is_not_answered(turn_start):
    turnd = turn_start()
    before = turnd.relay.metrics()
    forged((next_ip(), 0), turnd.at, *[message(type_of(BINDING, REQUEST))] * 20)
    alive(turnd)
    after = turnd.relay.metrics()

    def grown(name):
        return sum(v - before.get(k, 0) for k, v in after.items() if name in k)
    assert grown('foreign') == 20
    assert grown('turn_bindings') == 0


@pytest.mark.parametrize('name, attrs', [('binding', None), ('allocate', ())])
def test_turn_44_an_allocation_is_no_licence_to_have_its_client_flooded(turn_start, name, attrs):
    """What anybody can send in the name of a client is answered so often, and then no more."""
    turnd = turn_start(replies=10)
    client = turnd.udp().allocate()
    method = BINDING if name == 'binding' else ALLOCATE
    for _ in range(300):
        client.path.send(message(type_of(method, REQUEST)))
    answers = 0
    while client.recv(0.3) is not None:
        answers += 1
    assert 10 <= answers <= 60
    assert client.refresh().code == 0, 'who proves himself is answered'


def test_turn_76_long_units_are_for_who_has_an_allocation(turn_start):
    """64 buffers of 64 KiB are all that there are for them: strangers must not hold any."""
    turnd = turn_start()
    stranger = turnd.tcp()
    stranger.path.send(header(type_of(ALLOCATE, REQUEST), 4000, bytes(12)) + bytes(100))
    assert stranger.path.closed_within(2)
    client = turnd.tcp().allocate()
    with UdpPeer() as far:
        assert client.bind_channel(0x4000, far.at).code == 0
        client.path.send(channel_data(0x4000, bytes(9000))[:5000])
        time.sleep(0.1)
        client.path.send(channel_data(0x4000, bytes(9000))[5000:])
        assert far.recv()[0] == bytes(9000)


def test_turn_53_what_another_port_does_not_cure_costs_no_ports(turn_start):
    """No descriptor is left: eight ports would be drawn for each Allocate, and rest for minutes."""
    turnd = turn_start('--turn-ports', '50000-50015', nofile=128, shards=1)
    client, hoard = turnd.udp(), []
    client.challenge()
    while len(hoard) < 128:
        hoard.append(turnd.tcp())
    time.sleep(0.3)
    codes = [client.request(ALLOCATE, UDP_TRANSPORT).code for _ in range(4)]
    assert codes == [508] * 4
    for one in hoard:
        one.path.close()
    end = time.monotonic() + 5
    while client.request(ALLOCATE, UDP_TRANSPORT).code and time.monotonic() < end:
        time.sleep(0.2)
    assert client.refresh().code == 0


def test_turn_18_what_a_peer_sends_leaves_by_the_door_of_its_family(turn_start):
    """[::] stands first, and takes no IPv4: 0.0.0.0 does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(('0.0.0.0', 0))
        port = probe.getsockname()[1]
    turnd = turn_start('--turn-relay-ip', '127.0.0.1',
                       listen=('[::]:%d' % port, '0.0.0.0:%d' % port))
    client = turnd.udp(at=('127.0.0.1', port)).allocate()
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        far.send(b'to a client on IPv4', client.relayed)
        assert client.data() == (far.at, b'to a client on IPv4')


def test_turn_79_neighbours_behind_the_external_address_connect_too(turn_start):
    """As with datagrams: a neighbour is known by the address that the world knows him by."""
    turnd = turn_start('--turn-external-ip', '198.51.100.7')
    near, far = (turnd.tcp().allocate(transport=TCP_TRANSPORT) for _ in range(2))
    assert near.relayed[0] == far.relayed[0] == '198.51.100.7'
    assert near.permit(far.relayed[0]).code == 0
    far.path.send(far.make(CONNECT, peer(*near.relayed)))
    attempt = near.wait(lambda u: u.type == type_of(CONNECTION_ATTEMPT, INDICATION))
    assert attempt is not None
    assert attempt.address(XOR_PEER_ADDRESS) == far.relayed
    assert far.recv().cls == SUCCESS


def test_turn_what_is_sent_to_everybody_is_not_answered(turn_start):
    """An answer could not come from there; and of all servers of a network none should begin."""
    turnd = turn_start('--turn-relay-ip', '127.0.0.1', listen=('0.0.0.0:0',))
    at, before = turnd.at[1], turnd.relay.metrics()
    with UdpPeer('127.0.0.1') as caller:
        caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for _ in range(20):
            caller.send(message(type_of(BINDING, REQUEST)), ('127.255.255.255', at))
        caller.send(message(type_of(BINDING, REQUEST)), ('127.0.0.1', at))
        assert caller.recv()[1] == ('127.0.0.1', at)
    name = 'sluice_turn_bindings_total'
    assert turnd.relay.metrics()[name] - before[name] == 1
