"""turn.md §20, checks 78 to 80: streams to and from peers (RFC 6062)."""

import hashlib
import os
import random
import socket
import struct
import threading
import time

import pytest

from relay import SLOW, next_ip
from turn import (ALLOCATE, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND,
                  CONNECTION_ID, DONT_FRAGMENT, EVEN_PORT, INDICATION, MOBILITY_TICKET, REFRESH,
                  RESERVATION_TOKEN, TCP_TRANSPORT, XOR_PEER_ADDRESS, Message, bound, peer, type_of,
                  u32)
from turnd import Clock


class Listener:
    """A peer that takes connections."""

    def __init__(self, ip=None):
        self.sock = bound(socket.SOCK_STREAM, ip or next_ip())
        self.sock.listen(50)
        self.at = self.sock.getsockname()[:2]

    def accept(self, timeout=3):
        self.sock.settimeout(timeout * SLOW)
        got, source = self.sock.accept()
        got.settimeout(10 * SLOW)
        return got, source[:2]

    def close(self):
        self.sock.close()


@pytest.fixture
def listener():
    it = Listener()
    yield it
    it.close()


def control(turnd, **options):
    return turnd.tcp(**options).allocate(transport=TCP_TRANSPORT)


def connect(client, at, **how):
    """The CONNECTION-ID, or the error."""
    got = client.request(CONNECT, peer(*at), **how)
    return got.get(CONNECTION_ID) if got.code == 0 else got.code


def bind(turnd, number, behind=b'', code=0, **options):
    """A data connection; its path. What is sent `behind` the request travels with it."""
    client = turnd.tcp(**options)
    client.challenge()
    raw = client.make(CONNECTION_BIND, (CONNECTION_ID, number))
    client.path.send(raw + behind)
    got = client.reply(raw)
    assert got is not None and got.code == code, got
    if code == 0:
        assert got.signed_by(client.key)
    return client.path


def recv_exactly(sock, n):
    out = b''
    while len(out) < n:
        got = sock.recv(min(n - len(out), 1 << 18))
        assert got, '%d of %d bytes' % (len(out), n)
        out += got
    return out


def closes(sock, seconds=2):
    """Does the peer's end see a close?"""
    sock.settimeout(seconds * SLOW)
    try:
        while sock.recv(65536):
            pass
        return True
    except socket.timeout:
        return False
    except OSError:
        return True


def joined(turnd, client, listener):
    """A peer's socket, and the client's path to it."""
    number = connect(client, listener.at)
    assert isinstance(number, bytes), number
    far, source = listener.accept()
    assert source == client.relayed, 'from the relayed address'
    return far, bind(turnd, number)


# ---- 78: Connect --------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_78_connect_bind_and_raw_bytes_both_ways(turnd, listener):
    """From connections enough that some of them are on another shard than their allocation."""
    for i in range(6):
        client = control(turnd)
        number = connect(client, listener.at)
        far, source = listener.accept()
        assert source == client.relayed and len(number) == 4
        far.sendall(b'before the bind')
        near = bind(turnd, number, behind=b'behind the bind')
        assert recv_exactly(far, 15) == b'behind the bind'
        assert near.raw(15) == b'before the bind'
        for block in (b'\0', b'\0\1\0\0!\x12\xa4B' + bytes(12), b'\x40\0\0\4abcd',
                      os.urandom(70000)):
            near.send(block)
            assert recv_exactly(far, len(block)) == block, 'no framing any more'
            far.sendall(block)
            assert near.raw(len(block)) == block
        far.close()
        assert near.closed_within(2)


@pytest.mark.sanitize
def test_turn_78_much_data_arrives_whole(turnd, listener):
    """16 MiB each way at once, with its hash; the bulk of it by whichever way the server moves
    bulk."""
    client = control(turnd)
    far, near = joined(turnd, client, listener)
    size, sums = 16 << 20, {}
    blocks = [random.Random(i).randbytes(1 << 20) for i in range(4)]

    def pour(sock):
        for i in range(size >> 20):
            sock.sendall(blocks[i % 4])

    def take(sock, name):
        digest, left = hashlib.sha256(), size
        while left:
            got = sock.recv(min(left, 1 << 18))
            assert got, '%s ends %d bytes early' % (name, left)
            digest.update(got)
            left -= len(got)
        sums[name] = digest.hexdigest()
    near.sock.settimeout(30 * SLOW)
    far.settimeout(30 * SLOW)
    threads = [threading.Thread(target=pour, args=(s,)) for s in (far, near.sock)] + [
        threading.Thread(target=take, args=(s, name)) for s, name in ((far, 'far'),
                                                                      (near.sock, 'near'))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = hashlib.sha256(b''.join(blocks) * (size >> 22)).hexdigest()
    assert sums == {'far': want, 'near': want}


def test_turn_78_who_reads_slowly_is_waited_for(turnd, listener):
    """Nothing is lost, and what waits is bounded."""
    client = control(turnd)
    far, near = joined(turnd, client, listener)
    before = turnd.relay.rss_kib()
    block, sent = random.Random(1).randbytes(1 << 20), 0
    near.sock.setblocking(False)
    quiet = 0
    while quiet < 10 and sent < 64 << 20:  # far reads nothing
        try:
            at = sent % len(block)
            sent += near.sock.send(block[at:at + 65536])
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    assert sent < 64 << 20, 'somebody takes it all'
    assert turnd.grown_kib(before) < 8 * 1024
    got = 0
    while got < sent:
        piece = far.recv(65536)
        at = got % len(block)
        assert piece and (block + block[:65536])[at:at + len(piece)] == piece
        got += len(piece)
    assert client.refresh().code == 0


def test_turn_78_the_same_peer_twice_is_446(turnd, listener):
    client = control(turnd)
    number = connect(client, listener.at)
    assert isinstance(number, bytes)
    assert connect(client, listener.at) == 446, 'while it waits'
    far, _ = listener.accept()
    near = bind(turnd, number)
    assert connect(client, listener.at) == 446, 'while it lives'
    far.close()
    assert near.closed_within(2)
    near.close()
    other = control(turnd)
    assert isinstance(connect(other, listener.at), bytes), 'of another allocation'
    second = Listener(listener.at[0])
    assert isinstance(connect(client, second.at), bytes), 'another port'
    second.close()
    turnd.relay.until(lambda: isinstance(connect(client, listener.at), bytes), 3, 'a new one')


def test_turn_78_a_closed_port_is_447(turnd, listener):
    client = control(turnd)
    listener.close()
    for _ in range(3):
        assert connect(client, listener.at) == 447
    assert client.refresh().code == 0


def test_turn_78_what_connect_must_name(turnd):
    client = control(turnd)
    assert client.request(CONNECT).code == 400
    assert client.request(CONNECT, (XOR_PEER_ADDRESS, b'\0\1\0\0')).code == 400
    assert connect(client, ('127.9.9.9', 0)) == 400
    assert connect(client, ('2a00::1', 80)) == 443
    assert connect(client, ('10.0.0.1', 80)) == 403
    assert connect(turnd.tcp().allocate(), ('127.9.9.9', 80)) in (403, 400), 'a UDP allocation'
    nobody = turnd.tcp()
    nobody.challenge()
    assert connect(nobody, ('127.9.9.9', 80)) == 437
    assert connect(turnd.udp().allocate(), ('127.9.9.9', 80)) in (403, 400)


@pytest.mark.sanitize
def test_turn_78_nobody_binds_for_30_s(turn_start, listener, tmp_path):
    """And the peer sees a close, not before; afterwards the number is nobody's. The same for a peer
    that connected. What is bound stays."""
    clock = Clock(tmp_path)
    turnd = turn_start('--shards', 1, env=clock.env)
    client = control(turnd)
    bound_far, bound_near = joined(turnd, client, listener)
    second = Listener()
    number = connect(client, second.at)
    far, _ = second.accept()
    assert client.permit(second.at[0]).code == 0
    comer = socket.create_connection(client.relayed, 5, source_address=(second.at[0], 0))
    attempt = client.wait(lambda u: u.type == type_of(CONNECTION_ATTEMPT, INDICATION))
    clock.step(25)
    assert client.quiet() and not closes(far, 0.1 / SLOW) and not closes(comer, 0.1 / SLOW)
    clock.step(6)
    assert client.quiet()
    assert closes(far) and closes(comer)
    bind(turnd, number, code=400)
    bind(turnd, attempt.get(CONNECTION_ID), code=400)
    bound_near.send(b'still here')
    assert recv_exactly(bound_far, 10) == b'still here'
    second.close()


@pytest.mark.sanitize
def test_turn_78_half_closes_are_passed_on(turnd, listener):
    client = control(turnd)
    for first in ('near', 'far'):
        far, near = joined(turnd, client, listener)
        one, other = (near.sock, far) if first == 'near' else (far, near.sock)
        one.settimeout(5 * SLOW)
        other.settimeout(5 * SLOW)
        one.sendall(b'question')
        one.shutdown(socket.SHUT_WR)
        assert recv_exactly(other, 8) == b'question' and other.recv(1) == b''
        other.sendall(b'the answer to it')
        assert recv_exactly(one, 16) == b'the answer to it'
        other.close()
        assert one.recv(1) == b''
        turnd.relay.until(lambda: connect(client, listener.at) != 446, 3, 'the pair forgotten')
        listener.accept()[0].close()
        listener.close()
        listener = Listener()


@pytest.mark.parametrize('who', ['near', 'far'])
@pytest.mark.parametrize('reset', [False, True], ids=['fin', 'rst'])
def test_turn_80_either_end_closes_the_pair(turnd, listener, who, reset):
    client = control(turnd)
    far, near = joined(turnd, client, listener)
    gone = near.sock if who == 'near' else far
    if reset:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    gone.close()
    assert closes(far) if who == 'near' else near.closed_within(2)
    assert client.refresh().code == 0


# ---- 79: peers who connect ----------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_79_a_permitted_peer_connects(turnd):
    for _ in range(6):
        client, ip = control(turnd), next_ip()
        assert client.permit(ip).code == 0
        far = socket.create_connection(client.relayed, 5, source_address=(ip, 0))
        far.sendall(b'hello')
        got = client.wait(lambda u: isinstance(u, Message) and
                          u.type == type_of(CONNECTION_ATTEMPT, INDICATION))
        assert got.address(XOR_PEER_ADDRESS) == far.getsockname()
        near = bind(turnd, got.get(CONNECTION_ID))
        assert near.raw(5) == b'hello'
        near.send(b'and back')
        assert recv_exactly(far, 8) == b'and back'
        far.close()
        assert near.closed_within(2)


@pytest.mark.sanitize
def test_turn_79_a_peer_without_permission_is_closed_at_once(turnd):
    client = control(turnd)
    assert client.permit(next_ip()).code == 0
    for _ in range(3):
        try:
            far = socket.create_connection(client.relayed, 5, source_address=(next_ip(), 0))
        except ConnectionError:
            continue
        assert closes(far, 1)
    assert client.quiet(), 'and the client hears nothing'


def test_turn_79_a_denied_peer_is_closed_whatever_the_permission(turn_start):
    """The policy stands before the permission, for streams too (CVE-2026-73212)."""
    turnd = turn_start('--turn-deny-peer', '127.66.0.0/16')
    client = control(turnd)
    assert client.permit('127.66.0.1').code == 403
    try:
        far = socket.create_connection(client.relayed, 5, source_address=('127.66.0.1', 0))
        assert closes(far, 1)
    except ConnectionError:
        pass
    assert client.quiet()


def test_turn_79_peers_that_connect_have_a_bound(turnd):
    """A flood of them does not take the server, nor its other clients, along."""
    client, ip, comers = control(turnd), next_ip(), []
    assert client.permit(ip).code == 0
    for _ in range(400):
        try:
            comers.append(socket.create_connection(client.relayed, 2, source_address=(ip, 0)))
        except OSError:
            pass
    assert turnd.udp().allocate().quiet()
    attempts = 0
    while client.recv(0.2):
        attempts += 1
    assert 1 <= attempts <= 400
    for comer in comers:
        comer.close()
    client.close()


# ---- 80: who may bind what ----------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_80_what_cannot_be_bound_is_400(turnd, listener):
    client = control(turnd)
    number = connect(client, listener.at)
    far, _ = listener.accept()
    udp = turnd.udp()
    assert udp.request(CONNECTION_BIND, (CONNECTION_ID, number)).code == 400, 'over UDP'
    for other in (bytes(4), b'\xff' * 4, bytes((number[0], number[1], number[2], number[3] ^ 1))):
        bind(turnd, other, code=400)
    for value in (b'', number[:3], number + b'\0'):
        bind(turnd, value, code=400)
    missing = turnd.tcp()
    assert missing.request(CONNECTION_BIND).code == 400
    bind(turnd, number, code=400, user='bob', password='word')
    got = client.request(CONNECTION_BIND, (CONNECTION_ID, number))
    assert got.code == 400, 'on a connection with an allocation'
    near = bind(turnd, number)
    bind(turnd, number, code=400)
    near.send(b'none of it mattered')
    assert recv_exactly(far, 19) == b'none of it mattered'


def test_turn_80_numbers_follow_no_order(turnd):
    client, numbers = control(turnd), []
    for _ in range(20):
        one = Listener()
        numbers.append(struct.unpack('!I', connect(client, one.at))[0])
        one.close()
    steps = {(b - a) & 0xFFFFFFFF for a, b in zip(numbers, numbers[1:])}
    assert len(set(numbers)) == 20 and len(steps) >= 18, 'nobody guesses the next one'


@pytest.mark.sanitize
def test_turn_80_a_tcp_allocation_relays_no_datagrams(turnd, listener):
    client = control(turnd)
    assert client.bind_channel(0x4000, listener.at).code == 403
    assert client.permit(listener.at[0]).code == 0
    with bound(socket.SOCK_DGRAM, listener.at[0], listener.at[1]) as datagrams:
        datagrams.settimeout(0.1)
        client.send(listener.at, b'by Send')
        client.send_channel(0x4000, b'by ChannelData')
        assert client.quiet()
        with pytest.raises(socket.timeout):
            datagrams.recv(100)


@pytest.mark.parametrize('attr', [(EVEN_PORT, b'\0'), (DONT_FRAGMENT, b''),
                                  (RESERVATION_TOKEN, bytes(8)), (MOBILITY_TICKET, b'')],
                         ids=['even', 'df', 'token', 'ticket'])
def test_turn_80_what_a_tcp_allocation_cannot_have(turnd, attr):
    got = turnd.tcp().request(ALLOCATE, TCP_TRANSPORT, attr)
    assert got.code == (405 if attr[0] == MOBILITY_TICKET else 400)


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('how', ['closed', 'deleted'])
def test_turn_80_data_connections_end_with_their_allocation(turnd, how):
    client, ends = control(turnd), []
    for _ in range(4):
        one = Listener()
        ends.append(joined(turnd, client, one))
        one.close()
    waiting = Listener()
    connect(client, waiting.at)
    last, _ = waiting.accept()
    if how == 'closed':
        client.close()
    else:
        assert client.refresh(0).code == 0
    for far, near in ends:
        assert closes(far) and near.closed_within(2)
    assert closes(last)
    with pytest.raises(OSError):
        socket.create_connection(client.relayed, 1)
    waiting.close()


def test_turn_80_the_data_connection_is_no_control_connection(turnd, listener):
    """STUN on it is the peer's; and a connection that was not bound yet can be used again."""
    client = control(turnd)
    number = connect(client, listener.at)
    far, _ = listener.accept()
    again = turnd.tcp()
    assert again.request(CONNECTION_BIND, (CONNECTION_ID, b'\xff\xff\xff\xff')).code == 400
    assert again.request(CONNECTION_BIND, (CONNECTION_ID, number)).code == 0
    raw = again.make(REFRESH)
    again.path.send(raw)
    assert recv_exactly(far, len(raw)) == raw
    assert again.path.recv(0.1) is None


def test_turn_78_hairpin_of_two_tcp_allocations(turnd):
    """One relayed address connects to another one of the same server."""
    a, b = control(turnd), control(turnd)
    assert b.permit(a.relayed[0]).code == 0
    number = connect(a, b.relayed)
    assert isinstance(number, bytes), number
    got = b.wait(lambda u: u.type == type_of(CONNECTION_ATTEMPT, INDICATION))
    assert got.address(XOR_PEER_ADDRESS) == a.relayed
    one, two = bind(turnd, number), bind(turnd, got.get(CONNECTION_ID))
    one.send(b'through the relay twice')
    assert two.raw(23) == b'through the relay twice'


def test_turn_80_off_means_off(turn_start):
    turnd = turn_start('--turn-tcp-relay', 'off')
    client = turnd.tcp().allocate()
    client.quiet(client.make(CONNECT, peer('127.9.9.9', 80)),
                 client.make(CONNECTION_BIND, u32(CONNECTION_ID, 1)))
    assert client.refresh().code == 0
