"""What an adversary finds at the edges of the TURN engine: where two features meet, and at the
greatest lengths that the protocols allow. The server goes on, for him and for others."""

import socket

import pytest

from relay import next_ip
from turn import EVEN_PORT, REQUESTED_ADDRESS_FAMILY, RESERVATION_TOKEN, family

BOTH = {'listen': ('127.0.0.1:0', '[::1]:0'), 'allow': ('127.0.0.0/8', '::1/128')}
V6_RELAY = family(REQUESTED_ADDRESS_FAMILY, 2)
PAIR = EVEN_PORT, b'\x80'


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
                       socket.SOCK_DGRAM) as peer:
        peer.bind((next_ip() if ip == '127.0.0.1' else ip, 0))
        if channel:
            assert client.bind_channel(0x4000, peer.getsockname()[:2]).code == 0
        else:
            assert client.permit(peer.getsockname()[0]).code == 0
        for n in (longest, longest - 3, longest - 40, 65000):
            peer.sendto(bytes(n), client.relayed)
            client.data(0.3)
        peer.sendto(b'and on', client.relayed)
        while True:
            got = client.data()
            assert got is not None
            if got[1] == b'and on':
                break
    alive(turnd)
