"""Data connections of RFC 6062 at their bounds: what is pipelined behind the bind, bandwidth, pipes
that run out, halves that are left lying."""

import hashlib
import os
import random
import select
import socket
import threading
import time

import pytest

from relay import SLOW, next_ip
from turn import (ALLOCATE, CONNECTION_ATTEMPT, CONNECTION_BIND, CONNECTION_ID, INDICATION,
                  TCP_TRANSPORT, XOR_PEER_ADDRESS, Closed, TcpPath, UdpPeer, message, type_of)
from test_turn_tcp_relay import Listener, bind, closes, connect, control, joined, recv_exactly

BLOCK = random.Random(6062).randbytes(1 << 20)


@pytest.fixture
def listener():
    it = Listener()
    yield it
    it.close()


def pipes_of(turnd):
    where, ends = '/proc/%d/fd/' % turnd.relay.proc.pid, set()
    for fd in os.listdir(where):
        try:
            ends.add(os.readlink(where + fd))
        except OSError:
            pass
    return sum(end.startswith('pipe:') for end in ends)


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('shards', [1, 2])
def test_turn_78_much_behind_the_bind(turn_start, listener, shards):
    """The client does not wait for the answer. With two shards half of these connections are
    accepted by the one that does not have the allocation, and go over with all that came."""
    turnd = turn_start('--shards', shards)
    behind = BLOCK[:300000]
    for _ in range(8):
        client = control(turnd)
        number = connect(client, listener.at)
        far, _ = listener.accept()
        near = turnd.tcp()
        near.challenge()
        raw = near.make(CONNECTION_BIND, (CONNECTION_ID, number))
        near.path.send(raw + behind)
        assert near.reply(raw).code == 0
        near.path.send(b'and more')
        assert recv_exactly(far, len(behind) + 8) == behind + b'and more'
        far.sendall(b'back')
        assert near.path.raw(4) == b'back'
        near.close()
        assert closes(far)


def test_turn_bandwidth_holds_a_stream_and_drops_nothing(turn_start, listener):
    turnd = turn_start('--turn-bps-per-allocation', 200000)
    far, near = joined(turnd, control(turnd), listener)
    began = time.monotonic()
    sender = threading.Thread(target=near.send, args=(2 * BLOCK,))
    sender.start()
    assert recv_exactly(far, 2 * len(BLOCK)) == 2 * BLOCK
    sender.join()
    # One pass may move a megabyte before it is asked to pay, and each has been paid for in the end.
    assert 2 < time.monotonic() - began < 60 * SLOW


def test_turn_78_slow_readers_take_no_pipes_from_others(turn_start, listener):
    """More of them than there are pipes, each with bytes in flight; who reads is served, whole."""
    turnd = turn_start('--shards', 1)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    stuck = []
    for _ in range(80):
        far, near = joined(turnd, control(turnd), listener)
        near.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        near.sock.setblocking(False)
        stuck.append((far, near))
    sent, moved = [0] * len(stuck), time.monotonic()
    while time.monotonic() - moved < 0.3:
        for i, (_, near) in enumerate(stuck):
            at = sent[i] % len(BLOCK)
            try:
                sent[i] += near.sock.send(BLOCK[at:at + 262144])
                moved = time.monotonic()
            except BlockingIOError:
                pass
    assert 64 <= pipes_of(turnd) <= 66, 'all, and its own output'
    far, near = joined(turnd, control(turnd), listener)
    for _ in range(8):
        near.send(BLOCK)
        assert recv_exactly(far, len(BLOCK)) == BLOCK
    for i, (far, _) in enumerate(stuck):  # and what was stuck comes, in order
        got = hashlib.sha256()
        want = hashlib.sha256((BLOCK * (sent[i] // len(BLOCK) + 1))[:sent[i]])
        left = sent[i]
        while left:
            piece = far.recv(262144)
            assert piece
            got.update(piece)
            left -= len(piece)
        assert got.digest() == want.digest()


@pytest.mark.long
def test_turn_78_half_a_pair_lives_while_it_moves(turnd, listener):
    """A peer that closed looks like one that has only said its last; ten quiet seconds end it."""
    client = control(turnd)
    far, near = joined(turnd, client, listener)
    near.sock.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b''
    for _ in range(7):
        time.sleep(2)
        far.sendall(b'still here')
        assert near.raw(10) == b'still here'
    began = time.monotonic()
    assert near.closed_within(15)
    assert time.monotonic() - began > 5
    assert isinstance(connect(client, listener.at), bytes), 'the peer can be had again'


def test_turn_78_two_allocations_talk_through_external_addresses(turn_start):
    """Each knows the other by the address that clients are told, and so do permissions."""
    turnd = turn_start('--turn-external-ip', '127.77.0.1')
    caller, called = control(turnd), control(turnd)
    assert caller.relayed[0] == called.relayed[0] == '127.77.0.1'
    assert called.permit('127.77.0.1').code == 0
    number = connect(caller, called.relayed)
    assert isinstance(number, bytes), number
    attempt = called.recv()
    assert attempt.type == type_of(CONNECTION_ATTEMPT, INDICATION)
    assert attempt.address(XOR_PEER_ADDRESS) == caller.relayed
    near, far = bind(turnd, number), bind(turnd, attempt.get(CONNECTION_ID))
    near.send(BLOCK)
    assert far.raw(len(BLOCK)) == BLOCK
    far.close()
    assert near.closed_within(2)


@pytest.mark.sanitize
def test_turn_78_a_reset_before_the_bind_ends_the_connection(turnd, listener):
    """What the peer sent is gone with it; the number is nobody's."""
    client = control(turnd)
    number = connect(client, listener.at)
    far, _ = listener.accept()
    far.sendall(b'never read')
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    far.close()
    turnd.relay.until(lambda: isinstance(connect(client, listener.at), bytes), 2, 'another one')
    bind(turnd, number, code=400)


@pytest.mark.sanitize
def test_turn_78_an_end_before_the_bind_is_passed_on_after_it(turnd, listener):
    client = control(turnd)
    number = connect(client, listener.at)
    far, _ = listener.accept()
    far.sendall(b'my last words')
    far.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    near = bind(turnd, number)
    assert near.raw(13) == b'my last words'
    near.send(b'heard')
    assert recv_exactly(far, 5) == b'heard'
    assert select.select([near.sock], [], [], 2 * SLOW)[0] and near.sock.recv(1) == b''


def test_turn_76_a_flood_of_small_units_keeps_nobody_waiting(turn_start):
    """Four bytes make a datagram of no bytes. Half a million of them come at once; others on the
    same shard are answered meanwhile, and the client afterwards."""
    turnd = turn_start('--shards', 1)
    client, other = turnd.tcp().allocate(), turnd.udp()
    with UdpPeer() as far:
        assert client.bind_channel(0x4000, far.at).code == 0
        probe = message(1)
        pour = threading.Thread(target=client.path.send, args=(b'\x40\0\0\0' * 500000 + probe,))
        pour.start()
        waits = []
        while not select.select([client.path.sock], [], [], 0)[0]:  # until that is answered
            began = time.monotonic()
            assert other.ask(1).code == 0
            waits.append(time.monotonic() - began)
        pour.join()
        assert client.reply(probe).code == 0
    assert len(waits) > 5 and max(waits) < 1 * SLOW, (len(waits), max(waits))


STRANGE = {
    'tls': bytes.fromhex('160301020001'),
    'proxy_v2': bytes.fromhex('0d0a0d0a000d0a51555449540a21'),
    'proxy_v1': b'PROXY TCP4 8.8.8.8',
    'ssh': b'SSH-2.0-OpenSSH_9.2',
}


@pytest.mark.parametrize('what', STRANGE)
def test_turn_74_what_begins_no_unit_is_not_waited_for(turnd, what):
    """Behind something that was one: no cookie, or no channel's number. The end of what cannot be
    heard would take ten seconds not to come."""
    client = turnd.tcp().allocate()
    client.path.send(STRANGE[what] + bytes(10))
    assert client.path.closed_within(2)


def test_turn_76_long_units_push_out_the_oldest(turn_start):
    """More clients with half of a long message than there is room for: the first ones go, the last
    is served."""
    turnd = turn_start('--shards', 1)
    clients = []
    for _ in range(80):
        client = turnd.tcp().allocate()
        client.path.send(b'\x40\x00\xff\x00' + bytes(3000))
        clients.append(client)
    assert clients[0].path.closed_within(2)
    last = clients[-1]
    last.path.send(bytes(0xff00 - 3000))
    assert last.refresh().code == 0
    assert sum(not c.path.closed_within(0.01 / SLOW) for c in clients[16:40]) == 24
    assert os.path.exists('/proc/%d' % turnd.relay.proc.pid)


@pytest.mark.sanitize
def test_turn_76_connections_per_address(turn_start, listener):
    """Counted wherever they go: to a peer, to the other shard, or away; and given back once."""
    turnd, ip = turn_start('--shards', 2, '--max-conns-per-ip', 4), next_ip()
    for _ in range(20):
        client = control(turnd, source=ip)
        number = connect(client, listener.at)
        far, _ = listener.accept()
        near = bind(turnd, number, source=ip)
        spare = [TcpPath(turnd.at, ip) for _ in range(2)]
        for path in spare:
            path.send(message(1))
            assert path.recv(3 * SLOW), 'four are welcome'
        assert TcpPath(turnd.at, ip).closed_within(2), 'and no more'
        for path in (near, client.path, *spare):
            path.close()
        assert closes(far)
        turnd.relay.until(lambda: served(turnd, ip), 2, 'four places')
        turnd.relay.until(lambda: turnd.relay.metrics()['sluice_turn_streams'] == 0, 2, 'nobody')
    paths = [TcpPath(turnd.at, ip) for _ in range(6)]
    turnd.relay.until(lambda: sum(p.closed_within(0.05 / SLOW) for p in paths) == 2, 2, 'two closed')


def served(turnd, ip):
    """All four, at once."""
    paths = [TcpPath(turnd.at, ip) for _ in range(4)]
    try:
        for path in paths:
            path.send(message(1))
        return all(path.recv(0.5 * SLOW) for path in paths)
    except (Closed, OSError):
        return False
    finally:
        for path in paths:
            path.close()


def test_turn_an_allocation_never_listens_where_others_do(turn_start):
    """The door, too, is in the range of ports, and lets its listeners share: whoever listened there
    with them would get other clients' connections."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        door = probe.getsockname()[1]
    turnd = turn_start('--turn-ports', '%d-%d' % (door - 1, door + 1),
                       listen=('127.0.0.1:%d' % door,))
    relayed = set()
    for _ in range(6):
        client = turnd.tcp()
        got = client.request(ALLOCATE, TCP_TRANSPORT)
        if got.code == 0:
            relayed.add(got.relayed[1])
        else:
            assert got.code == 508
    assert door not in relayed and relayed <= {door - 1, door + 1}
    for _ in range(40):
        path = TcpPath(turnd.at)
        path.send(message(1))
        assert path.recv(2 * SLOW)
        path.close()
