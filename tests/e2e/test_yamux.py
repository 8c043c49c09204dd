"""libp2p.md §19, checks 30-40: the muxer, over real circuits where one is needed."""

import statistics
import threading
import time

import pytest

from circuit import dial, get_identify, join, ping, reserve, serve_stop
from rawp2p import ACK, CREDIT, DATA, FIN, GOAWAY, HEADER, PING, RST, SYN, WINDOW, Closed
from relay import SLOW
from wire import FAILED, HOP, IDENTIFY, MSS, NO_RESERVATION, OK, mss
from wire import PING as PING_PROTOCOL

PROTOCOL_ERROR = 1


@pytest.fixture
def legs(relay, placement):
    """A source and a target with a reservation."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).status == OK
        yield source, serve_stop(target)


def frames_of(session, sid, kind=None):
    return [f for f in session.frames if f[2] == sid and (kind is None or f[0] == kind)]


@pytest.mark.parametrize('style', ['window', 'data'])
def test_libp2p_30_streams_open_by_either_frame(relay, placement, style):
    with relay.connect(shard=placement.target) as session:
        stream = session.open(PING_PROTOCOL, style=style)
        assert ping(stream)
        assert stream.acked
        assert all(f[1] & ACK == 0 for f in frames_of(session, stream.sid)[1:]), 'one ACK is enough'


def test_libp2p_30_everything_in_one_frame(relay, placement):
    """Data|SYN|FIN with the header, the name and the whole request."""
    with relay.connect(shard=placement.target) as session:
        stream = session.stream('data')
        body = mss(MSS, HOP) + b'\x02\x08\x00'
        session.frame(DATA, SYN | FIN, stream.sid, len(body), body)
        assert stream.message() == MSS.encode() + b'\n'
        assert stream.message() == HOP.encode() + b'\n'
        assert b'\x28\x64' in stream.message()
        stream.wait_eof()


def fill(source, near):
    """Writes until the relay and the target hold all that they promised to."""
    sent, idle_since = 0, time.monotonic()
    while time.monotonic() - idle_since < 0.5:
        with source.cond:
            n = min(near.credit, 16384)
            if n:
                near.credit -= n
                source.frame(DATA, 0, near.sid, n, bytes(n))
                sent, idle_since = sent + n, time.monotonic()
        if not n:
            time.sleep(0.02)
    return sent


def test_libp2p_31_pings_pass_100_stalled_circuits(start, placement):
    """Each circuit's target takes nothing and its source has filled every window."""
    relay = start('--max-circuits-per-peer', 0)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target:
        reserve(target)
        for _ in range(100):
            near, _ = join(source, target)
            near.send(bytes(CREDIT))
        for session in (source, target):
            times = [session.ping(0xdeadbeef + i) for i in range(20)]
            assert max(times) < 0.1 * SLOW, times
        assert len(target.streams) >= 100


def test_libp2p_31_pings_pass_busy_circuits(start, placement):
    relay = start('--max-circuits-per-peer', 0)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        pairs = [join(source, target) for _ in range(100)]
        stop = threading.Event()

        def pump():
            block = bytes(16384)
            try:
                while not stop.is_set():
                    for near, _ in pairs:
                        near.send(block)
            except Closed:
                pass
        for _, far in pairs:
            far.sink = len
        thread = threading.Thread(target=pump)
        thread.start()
        try:
            times = []
            for i in range(15):
                times.append(source.ping(0xdeadbeef + i))
                time.sleep(0.05)
            moved = sum(far.rx_bytes for _, far in pairs)
        finally:
            stop.set()
            thread.join()
        assert moved > 8 << 20, 'the circuits were idle'
        # what the two ends of this process keep in their own queues is in it
        assert statistics.median(times) < 0.1 * SLOW, times


def test_libp2p_32_stream_513_is_reset_and_the_connection_lives(relay, placement):
    """And dusk_06."""
    with relay.connect(shard=placement.target) as session:
        streams = [session.stream() for _ in range(512)]
        assert session.wait(lambda: all(s.acked for s in streams))
        assert not any(s.rst for s in streams)
        extra = session.stream()
        assert extra.wait_reset(3)  # well before the negotiation's own deadline
        assert session.goaway is None and session.alive()
        for stream in streams[:10]:
            stream.reset()
        assert session.wait(lambda: True) and session.alive()
        assert ping(session.open(PING_PROTOCOL)), 'freed slots serve again'


def test_libp2p_33_one_byte_beyond_the_window_ends_the_connection(relay, placement):
    """And dusk_06."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target:
        reserve(target)
        near, far = join(source, target)
        sent = fill(source, near)
        # what the target was promised, and what the relay itself holds: bounded, whoever sleeps
        assert CREDIT <= sent <= 2 * CREDIT + 65536, sent
        assert source.alive()
        source.frame(DATA, 0, near.sid, 1, b'x')
        assert source.wait_dead(3)
        assert source.goaway == PROTOCOL_ERROR
        assert target.alive(), 'the other end only loses its circuit'
        assert far.wait_reset()


def test_libp2p_33_the_window_of_an_undecided_stream_holds_too(relay, placement):
    """A whole window of junk before the negotiation is over must not be kept."""
    with relay.connect(shard=placement.target) as session:
        stream = session.stream()
        session.frame(DATA, 0, stream.sid, CREDIT + 1, bytes(CREDIT + 1))
        session.wait(lambda: session.dead or stream.rst, 3)
        assert session.dead or stream.rst


def test_libp2p_34_credit_beyond_32_bits_is_harmless(legs):
    source, target = legs
    near, far = join(source, target)
    for session, stream in ((source, near), (target, far)):
        # to exactly 2^32, which a sum of 32 bits takes for nothing
        session.frame(WINDOW, 0, stream.sid, (1 << 32) - (CREDIT - stream.rx_bytes))
    near.send(b'a' * 300000)
    assert far.recv(300000) == b'a' * 300000
    far.send(b'b' * 300000)
    assert near.recv(300000) == b'b' * 300000
    for _ in range(3):
        source.frame(WINDOW, 0, near.sid, 0xffffffff)
    far.send(b'c' * 300000)
    assert near.recv(300000) == b'c' * 300000
    assert source.alive() and target.alive()


def test_libp2p_34_granted_credit_never_overflows(legs):
    """rust ends the connection when grants add up beyond 2^32-1 (libp2p.md §6.1.4)."""
    source, target = legs
    near, far = join(source, target)
    far.sink = len
    near.send(bytes(8 << 20))
    near.close_write()
    far.wait_eof()
    granted = sum(f[3] for f in frames_of(source, near.sid, WINDOW) if not f[1] & RST)
    assert granted <= near.tx_bytes, 'more was returned than was sent'
    small = [f[3] for f in frames_of(source, near.sid, WINDOW) if 0 < f[3] < 4096]
    assert not small, 'js sleeps through small grants (libp2p.md §6.2.4)'


@pytest.mark.parametrize('closer', ['source', 'target'])
def test_libp2p_35_fin_one_way_data_the_other(legs, closer):
    """And dusk_20."""
    source, target = legs
    near, far = join(source, target)
    first, second = (near, far) if closer == 'source' else (far, near)
    first.send(b'last words')
    first.close_write()
    assert second.recv_to_eof() == b'last words'
    block = bytes(range(256)) * 4096
    second.send(block)
    assert first.recv(len(block)) == block
    assert not first.eof
    second.close_write()
    first.wait_eof()
    assert not first.rst and not second.rst


@pytest.mark.parametrize('who', ['target', 'source'])
def test_libp2p_36_reset_in_the_middle_of_a_frame(legs, who):
    """The rest of the body is drained and the connection goes on."""
    source, target = legs
    near, far = join(source, target)
    sender, sending, other = (source, near, far) if who == 'source' else (target, far, near)
    body = b'z' * 100000
    frame = HEADER.pack(0, DATA, 0, sending.sid, len(body)) + body
    sending.credit -= len(body)
    sender.sealed(frame[:40000])
    other.recv(10000)
    other.reset()
    assert sending.wait_reset()
    sender.sealed(frame[40000:90000])
    sender.sealed(frame[90000:])
    assert sender.alive()
    assert get_identify(sender)


def test_libp2p_37_frames_of_unknown_streams_are_drained(relay, placement):
    with relay.connect(shard=placement.target) as session:
        for sid in (9999, 2, 4096, 0xffffffff):
            session.frame(DATA, 0, sid, 5000, bytes(5000))
            session.frame(DATA, FIN, sid, 0)
            session.frame(WINDOW, 0, sid, 1000)
            session.frame(WINDOW, RST, sid, 0x1002)
            session.frame(DATA, RST, sid, 3, b'abc')
        assert session.alive()
        closed = session.open(IDENTIFY)
        closed.recv_to_eof()
        closed.reset()
        session.frame(DATA, 0, closed.sid, 70000, bytes(70000))  # late, after our own RST
        assert session.alive() and session.goaway is None


def test_libp2p_38_a_256_kib_frame_is_forwarded_before_it_is_whole(legs):
    source, target = legs
    near, far = join(source, target)
    source.wait(lambda: near.credit == CREDIT, 1)  # if what the negotiation took comes back
    body = bytes(range(256)) * 1024
    body = body[:near.credit]
    near.credit -= len(body)
    source.sealed(HEADER.pack(0, DATA, 0, near.sid, len(body)) + body[:40000])
    assert far.recv(40000) == body[:40000]
    for at in range(40000, len(body), 50000):
        source.sealed(body[at:at + 50000])
    assert far.recv(len(body) - 40000) == body[40000:]


@pytest.mark.parametrize('who', ['source', 'target'])
def test_libp2p_39_circuits_outlive_goaway_0(relay, legs, placement, who):
    source, target = legs
    near, far = join(source, target)
    near.send(b'before')
    assert far.recv(6) == b'before'
    (source if who == 'source' else target).frame(GOAWAY, 0, 0, 0)
    block = bytes(range(256)) * 4096
    near.send(block)
    assert far.recv(len(block)) == block
    far.send(block)
    assert near.recv(len(block)) == block
    if who == 'target':  # and nothing new is opened towards it
        with relay.connect(shard=placement.source) as late:
            answer, _ = dial(late, target.key.peer_id)
            assert answer.status in (FAILED, NO_RESERVATION)
            assert not target.inbound
    near.close_write()
    far.wait_eof()
    far.close_write()
    near.wait_eof()
    assert not near.rst and not far.rst


def test_libp2p_40_a_ping_flood_ends_the_connection(relay, placement):
    with relay.connect(shard=placement.target) as session:
        for value in range(10000):
            session.frame(PING, SYN, 0, value)
            if session.dead:
                break
        assert session.wait_dead(3)
        assert session.pongs, 'a few are answered'


def bad_frames():
    """What ends a connection (libp2p.md §6.1.3). The stream that is open has id 1."""
    yield 'version', HEADER.pack(1, PING, SYN, 0, 1)
    yield 'type', HEADER.pack(0, 4, 0, 0, 0)
    yield 'SYN of a live stream', HEADER.pack(0, WINDOW, SYN, 1, 0)
    yield 'SYN with our parity', HEADER.pack(0, WINDOW, SYN, 2, 0)
    yield 'SYN of the session', HEADER.pack(0, DATA, SYN, 0, 0)


@pytest.mark.parametrize('what, frame', bad_frames(), ids=[w for w, _ in bad_frames()])
def test_libp2p_33_a_broken_rule_is_answered_by_goaway_1(relay, placement, what, frame):
    with relay.connect(shard=placement.target) as session:
        session.open(PING_PROTOCOL)
        session.sealed(frame)
        assert session.wait_dead(3), what
        assert session.goaway == PROTOCOL_ERROR, what
