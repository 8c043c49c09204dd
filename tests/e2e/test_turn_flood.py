"""turn.md §20, checks 44, 45 and 77, and §15.2, §15.3: strangers in numbers. Nothing is amplified,
nothing is kept, and those who are served are served on."""

import os
import random
import socket
import struct
import time

import pytest

from relay import SLOW, next_ip
from turn import (ALLOCATE, BINDING, UDP_TRANSPORT, UdpPath, UdpPeer, attr, bound, channel_data,
                  header, message, peer)

V10 = bytes.fromhex('000300082112a4420102030405060708090a0b0c0019000411000000')
V8 = bytes.fromhex('000100002112a4420102030405060708090a0b0c')


def count_replies(sock, seconds):
    sock.settimeout(seconds * SLOW)
    count = 0
    try:
        while sock.recv(2000):
            count += 1
    except socket.timeout:
        pass
    return count


# ---- 44: the limit of replies -------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('what', ['allocate', 'binding', 'bad nonce', 'no username', 'unknown'])
def test_turn_44_replies_to_strangers_are_limited(turn_start, what):
    """100 questions at once from one address, in many ports so that all shards are asked: at most
    10 answers, whatever they are."""
    turnd = turn_start('--shards', 2, replies=10)
    source = next_ip()
    client = turnd.udp()
    client.challenge()
    raw = {'allocate': V10, 'binding': V8,
           'bad nonce': client.make(ALLOCATE, UDP_TRANSPORT),
           'no username': message(0x0003, [UDP_TRANSPORT, (0x0014, b'realm'), (0x0015, b'nonce')],
                                  key=b'x'),
           'unknown': message(0x0001, [(0x7FFF, b'')])}[what]
    socks = [bound(socket.SOCK_DGRAM, source) for _ in range(10)]
    began = time.monotonic()
    for _ in range(10):
        for sock in socks:
            sock.sendto(raw, turnd.at)
    seconds = time.monotonic() - began + 0.1
    total = sum(count_replies(sock, 0.02) for sock in socks)
    assert 5 <= total <= 10 + 10 * seconds + 1, total
    for sock in socks:
        sock.close()


def test_turn_44_the_limit_is_of_one_address(turn_start):
    """Others are answered; and whoever has shown a credential is not limited by it."""
    turnd = turn_start(replies=10)
    flood = turnd.udp()
    user = turnd.udp(source=flood.path.local[0]).allocate()
    for _ in range(200):
        flood.path.send(V8)
    for _ in range(3):
        assert turnd.udp().exchange(V8).code == 0
    for _ in range(60):
        assert user.refresh().code == 0


@pytest.mark.sanitize
def test_turn_44_over_tcp_all_are_answered(turn_start):
    """The address of a stream is its own: nothing to amplify."""
    turnd = turn_start(replies=10)
    client = turnd.tcp()
    raws = [message(ALLOCATE, [UDP_TRANSPORT]) for _ in range(100)]
    client.path.send(b''.join(raws))
    assert all(client.reply(raw).code == 401 for raw in raws)


def test_turn_44_a_neighbourhood_shares_ten_times_as_much(turn_start):
    """A /24 of spoofed addresses (turn.md §15.2)."""
    turnd = turn_start(replies=10)
    socks = [bound(socket.SOCK_DGRAM, '127.99.99.%d' % (1 + i)) for i in range(60)]
    began = time.monotonic()
    for _ in range(10):
        for sock in socks:
            sock.sendto(V8, turnd.at)
    seconds = time.monotonic() - began + 0.1
    total = sum(count_replies(sock, 0.01) for sock in socks)
    assert 50 <= total <= 100 + 100 * seconds + 10, total
    for sock in socks:
        sock.close()


def test_turn_44_no_answer_is_much_longer_than_its_question(turnd):
    """3.6 times at most (turn.md §15.2), for questions of every shape that a stranger can ask."""
    client = turnd.udp()
    client.challenge()
    for raw in (V8, V10, header(ALLOCATE, 0, bytes(12)), client.make(ALLOCATE, UDP_TRANSPORT),
                message(BINDING, [(0x7F00 + i, b'') for i in range(40)]),
                message(0x0003, [attr(0x0015, b'x'), attr(0x8022, b'')]),
                message(0x0004), message(0x0008), message(0x0009)):
        got = client.exchange(raw)
        assert got is None or len(got.raw) <= 100 or len(got.raw) <= 1.6 * len(raw), got


# ---- 45: state ----------------------------------------------------------------------------------

def from_many_ports(turnd, raws, count):
    """Each from an address and port of its own."""
    for i in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(('127.%d.%d.%d' % (150 + i % 50, i // 50 % 250, 1 + i // 12500), 0))
            sock.sendto(raws[i % len(raws)], turnd.at)


def test_turn_45_strangers_leave_nothing(turn_start):
    """100 000 Allocates without credentials, from as many sources."""
    turnd = turn_start(replies=10)
    user = turnd.udp().allocate()
    from_many_ports(turnd, [V10], 10000)
    assert user.refresh().code == 0
    before = turnd.relay.rss_kib()
    from_many_ports(turnd, [V10], 100000)
    assert user.refresh().code == 0
    assert turnd.grown_kib(before) < 1024
    assert len(os.listdir('/proc/%d/fd' % turnd.relay.proc.pid)) < 200


# ---- 77: DTLS, where it is not spoken -----------------------------------------------------------

def client_hello(declared, size=10, offset=0):
    """A DTLS 1.2 record with one fragment of a ClientHello that says it is `declared` long."""
    body = b'\1' + declared.to_bytes(3, 'big') + bytes(2) + offset.to_bytes(3, 'big') + \
        size.to_bytes(3, 'big') + os.urandom(size)
    return b'\x16\xfe\xfd' + bytes(8) + struct.pack('!H', len(body)) + body


@pytest.mark.sanitize
def test_turn_77_cve_2026_73214_cve_2022_29189_cve_2022_29190_dtls_leaves_nothing(turn_start):
    """35 bytes that announce 650 000, from 10 000 ports; fragments of nothing, behind the end, and
    over each other; records of no handshake get no answer."""
    turnd = turn_start()
    user = turnd.udp().allocate()
    assert len(client_hello(650000)) == 35
    hellos = [client_hello(650000), client_hello(650000, 0), client_hello(16, 10, 650000),
              client_hello(0, 0), client_hello(20, 10, 5), client_hello(0xFFFFFF, 10, 0xFFFFF0)]
    count = 10000 if SLOW == 1 else 2000
    from_many_ports(turnd, hellos, count // 10)
    before = turnd.relay.rss_kib()
    from_many_ports(turnd, hellos, count)
    assert user.refresh().code == 0
    assert turnd.grown_kib(before) < 1024
    for first in (0x14, 0x15, 0x17, 0x19, 0x1A, 0x20, 0x3F):
        assert user.quiet(bytes((first,)) + b'\xfe\xfd' + bytes(8) + b'\0\x20' + os.urandom(32))


@pytest.mark.sanitize
def test_turn_77_every_first_byte_is_sorted(turnd):
    """turn.md §1: what is neither STUN nor ChannelData is dropped without a word."""
    client = turnd.udp().allocate()
    rng = random.Random(1)
    for first in range(256):
        assert client.quiet(*(bytes((first,)) + rng.randbytes(n) for n in (0, 1, 3, 19, 20, 60)), late=0)
    assert client.refresh().code == 0


# ---- hostile, at rate ---------------------------------------------------------------------------

def junk(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 1400))
    if kind == 1:
        return V8 + rng.randbytes(rng.randrange(1, 9))
    if kind == 2:
        return message(0x0016, [peer('127.9.9.9', 9), (0x0013, b'x' * 100)])
    if kind == 3:
        return channel_data(0x4000 + rng.randrange(0x1000), b'x' * 100)
    if kind == 4:
        return header(1, 0xFFFC, rng.randbytes(12)) + bytes(60)
    if kind == 5:
        return message(0x0101 + rng.randrange(2) * 0x10)
    if kind == 6:
        return message(rng.randrange(0x4000) & 0x3EEF, [(rng.randrange(65536), rng.randbytes(20))])
    return message(0x0003, [(rng.randrange(64), rng.randbytes(rng.randrange(60)))
                            for _ in range(20)], fingerprint=True)


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_16_turn_45_junk_at_rate_changes_nothing_for_others(turn_start):
    """From many sources, while somebody talks to a peer: all of his arrives, memory is flat."""
    turnd = turn_start(replies=10)
    client, rng = turnd.udp().allocate(), random.Random(7)
    attackers = [UdpPath(turnd.at) for _ in range(20)]
    with UdpPeer() as far:
        assert client.bind_channel(0x4000, far.at).code == 0
        before = None
        for turn in range(150 if SLOW == 1 else 30):
            for attacker in attackers:
                for _ in range(5):
                    attacker.send(junk(rng))
            far.sock.sendto(rng.randbytes(50), client.relayed[:1] + (client.relayed[1] ^ 1,))
            data = b'%d' % turn
            client.send_channel(0x4000, data)
            assert far.recv() == (data, client.relayed)
            far.send(data, client.relayed)
            assert client.data() == (0x4000, data)
            if turn == 20:
                before = turnd.relay.rss_kib()
        assert turnd.grown_kib(before) < 1024
    for attacker in attackers:
        attacker.close()


def test_turn_45_a_flood_on_a_relayed_address_is_dropped(turnd):
    """From peers without a permission; those with one are heard, and the client hears no other."""
    client = turnd.udp().allocate()
    with UdpPeer() as far, UdpPeer() as stranger:
        assert client.permit(far.at[0]).code == 0
        for i in range(40):
            for _ in range(50):
                stranger.send(b'spam' * 50, client.relayed)
            far.send(b'%d' % i, client.relayed)
            assert client.data() == (far.at, b'%d' % i)
        assert client.quiet()


# ---- bandwidth (turn.md §14) --------------------------------------------------------------------

@pytest.mark.parametrize('flag', ['--turn-bps-per-allocation', '--turn-bps-per-user'])
def test_turn_56_bandwidth_has_a_cap(turn_start, flag):
    """100 000 bytes a second: of 1 MB at once a part passes, and later more does. Of a user, all
    his allocations share it."""
    turnd = turn_start(flag, 100000)
    clients = [turnd.udp().allocate() for _ in range(2)]
    with UdpPeer() as far:
        def passed():
            for client in clients:
                for _ in range(500):
                    client.send_channel(0x4000, bytes(1000))
            count = 0
            while far.recv(0.1 / SLOW):
                count += 1
            return count
        for client in clients:
            assert client.bind_channel(0x4000, far.at).code == 0
        share = 2 if 'allocation' in flag else 1
        began = time.monotonic()
        first = passed()
        assert 20 <= first <= 115 * share * (1 + time.monotonic() - began), first
        time.sleep(1.1)
        assert passed() >= 20, 'it comes back'
        other = turnd.udp(user='bob', password='word').allocate()
        assert other.permit(far.at[0]).code == 0
        other.send(far.at, b'another user')
        assert far.recv() == (b'another user', other.relayed)
