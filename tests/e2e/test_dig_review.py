"""What a review of the DIG door found (dig.md §3, §5.6, §9, §20, §21): ends that come early, memory
that runs short, deadlines under load."""

import select
import socket
import ssl
import struct
import time

import pytest

from dig import TEXT, frame, fresh_net, written
from relay import next_ip
from test_dig_tls import Cert, context


# ---- the end of a client's half ------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_what_was_said_before_the_end_is_carried(dig_start):
    """A question, a burst, and the client's half of TCP ends behind it: the last message arrives
    like the first, though the relay keeps what it cannot look at yet."""
    digd = dig_start()
    to, source = digd.group(2)
    count = 3000
    burst = frame(TEXT, b'{"type":"get_peers"}') + b''.join(frame(TEXT, written({
        'type': 'relay_message', 'from': 'x', 'to': to.id, 'payload': [1], 'seq': n}).encode())
        for n in range(count))
    source.send(burst)
    source.sock.shutdown(socket.SHUT_WR)
    for n in range(count):
        to.expect('relay_message', seq=n)
    to.told('peer_disconnected', source.id)


@pytest.mark.sanitize
def test_dig_what_was_said_before_a_question_was_answered(dig_start):
    """A question and, behind it, messages and the end: while control thinks, all of it waits."""
    digd = dig_start()
    net = fresh_net()
    to = digd.peer(net=net)
    for _ in range(20):
        source = digd.ws()
        source.send(b''.join(frame(TEXT, written(said).encode()) for said in (
            {'type': 'register', 'peer_id': 'quick', 'network_id': net, 'protocol_version': 1},
            {'type': 'relay_message', 'from': 'x', 'to': to.id, 'payload': [1], 'seq': 7})))
        source.sock.shutdown(socket.SHUT_WR)
        to.expect('relay_message', seq=7)
        to.told('peer_disconnected', 'quick')
        source.close()


@pytest.mark.sanitize
def test_dig_what_was_said_before_tls_ended_is_carried(dig_start, tmp_path):
    """The same, where close_notify stands behind the messages."""
    digd = dig_start('--dig-tls-client', 'off', **Cert(tmp_path).flags)
    net = fresh_net()
    to, source = (digd.peer(net=net, tls=context()) for _ in range(2))
    count = 20
    source.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    source.send(frame(TEXT, b'{"type":"get_peers"}') + b''.join(frame(TEXT, written({
        'type': 'relay_message', 'from': 'x', 'to': to.id, 'payload': [1], 'seq': n}).encode())
        for n in range(count)))
    source.sock.setblocking(False)
    try:
        source.sock.unwrap()
    except OSError:
        pass  # its answer comes later
    source.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    for n in range(count):
        to.expect('relay_message', seq=n)
    to.told('peer_disconnected', source.id, timeout=5)


# ---- memory for what goes to many ----------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_who_reads_nothing_does_not_silence_lists(dig_start):
    """Lists and broadcasts are from one memory. Somebody lets broadcasts lie until it is used up:
    others are still told who is there, and hear who comes."""
    digd = dig_start('--max-buffer-mb', 8)
    reader, sender = digd.group(2)
    deaf = digd.peer(net=sender.net, rcvbuf=4096)
    for size, count in (60000, 60), (6000, 60), (600, 60), (60, 60), (1, 100):
        for _ in range(count):
            sender.say('broadcast', from_='x', payload=[200] * size, exclude=[reader.id])
    sender.alive()
    for _ in range(3):
        assert deaf.id in reader.peers()
    late = digd.peer(net=sender.net)
    reader.told('peer_connected', late.id)
    assert digd.json('/stats.json')['connected_peers'] == 4


def test_dig_who_reads_nothing_does_not_silence_answers(dig_start):
    """1100 who read nothing have 1000 broadcasts waiting each, more than a shard has entries for:
    others still have their answers, and come and go."""
    digd = dig_start(shards=1, nofile=8192)
    net, other = fresh_net(), digd.peer()
    deaf = [digd.peer(net=net, rcvbuf=2048) for _ in range(1100)]
    sender = digd.peer(net=net)
    for size, count in (40000, 24), (5, 1000):
        one = frame(TEXT, written({'type': 'broadcast', 'from': 'x', 'payload': [200] * size,
                                   'exclude': []}).encode())
        for n in range(count):
            sender.send(one)
            if n % 200 == 199:
                sender.alive()
                other.alive()
    assert len(deaf) == 1100 and digd.peer(net=other.net).id in other.peers()


@pytest.mark.sanitize
@pytest.mark.parametrize('shards', [1, 2])
def test_dig_a_full_pool_is_no_reason_to_close_others(dig_start, shards):
    """Messages for who reads nothing fill the pool: they are lost, but answers still find room."""
    digd = dig_start('--max-buffer-mb', 8 * shards, shards=shards)
    net = fresh_net()
    others = [digd.peer() for _ in range(6)]
    deaf = [digd.peer(net=net, rcvbuf=4096) for _ in range(6)]
    for size, rounds in (50000, 30), (4000, 40), (300, 300):
        senders = [digd.peer(net=net) for _ in range(6)]
        for _ in range(rounds):
            for to, source in zip(deaf, senders):
                try:
                    source.relay(to, [200] * size)
                except OSError:
                    pass  # its own message had no room
        for other in others:
            other.ping(b'x' * 100)
            other.pong(b'x' * 100)
            other.alive()


# ---- who is heard --------------------------------------------------------------------------------

def test_dig_a_backlog_does_not_make_a_client_look_dead(dig_start):
    """A megabyte waits for it, and it reads nothing for a while, but it talks. Somebody else wants
    its id, so that it has 5 s to show life (dig.md §21): it did."""
    digd = dig_start()
    source = digd.peer()
    slow = digd.peer(net=source.net, rcvbuf=4096)
    for n in range(40):
        source.relay(slow, [200] * 10000, n)
    source.alive()
    slow.say('ping', timestamp=1)
    digd.ws().register(slow.id, source.net).refused(5)
    for _ in range(13):
        time.sleep(0.5)
        slow.ping(b'here')
    for n in range(40):
        slow.expect('relay_message', seq=n)
    slow.expect('pong', timestamp=1)
    slow.alive()
    assert slow.id in source.peers()


@pytest.mark.sanitize
def test_dig_a_crowd_of_handshakes_lets_others_speak(dig_start, tmp_path):
    """240 begin their handshakes at once, 1 ms of work each with this key. Who is there already is
    answered in between."""
    digd = dig_start('--dig-tls-client', 'off', shards=1, **Cert(tmp_path, 'rsa').flags)
    there = digd.peer(tls=context())
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    hello = out.read()
    crowd = [socket.create_connection(digd.at, source_address=(next_ip(), 0)) for _ in range(240)]
    there.alive()
    for conn in crowd:
        conn.send(hello)
    poll, waiting, pings = select.poll(), {conn.fileno() for conn in crowd}, 0
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting:
        there.alive()
        pings += 1
        for fd, _ in poll.poll(0):
            poll.unregister(fd)
            waiting.discard(fd)
    for conn in crowd:
        conn.close()
    assert pings >= 5, pings  # one, where all of them were one turn of the shard


# ---- who breaks off

@pytest.mark.sanitize
@pytest.mark.parametrize('tls', [False, True], ids=['plain', 'tls'])
def test_dig_what_was_said_before_a_reset_is_heard(dig_start, tmp_path, tls):
    """Who closes with something unread sends a reset, and has not taken back what it said before."""
    digd = dig_start(**(Cert(tmp_path).flags if tls else {}), dig_tls_client='off' if tls else None)
    options = {'tls': context()} if tls else {}
    net = fresh_net()
    to = digd.peer(net=net, **options)
    for n in range(20):
        conn = digd.ws(**options)
        conn.register(net=net)
        for k in range(5):  # they wait until control has answered the registration
            conn.relay(to, [n, k])
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        conn.sock.close()
        for k in range(5):
            assert to.expect('relay_message')['payload'] == [n, k]
