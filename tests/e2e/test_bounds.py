"""Memory that a peer can make the relay hold: for each bound of engine/limits.h somebody pushes
against it, and what is held is compared with the figure that follows from the headers (libp2p.md
§20.3; the table is in README.md). `sluice_buffer_bytes` counts whole chunks, as they are leased."""

import os
import resource
import subprocess
import threading
import time

import pytest

import figures
from circuit import crowd, dial, join, ping, reserve
from rawp2p import CREDIT, DATA, FIN, HEADER, RST, SYN, WINDOW
from relay import BUILD, SLOW
from transport import read_mss
from wire import FAILED, HOP, IDENTIFY, MSS, NOISE, OK, PUSH, Key, hop_connect, mss, uv
from wire import PING as PING_PROTOCOL

PROTOCOL_ERROR = 1
MIB = 1 << 20
PAUSE = min(SLOW, 2)  # for what is waited for each time, and not only when something hangs


def held(relay):
    return relay.metrics()['sluice_buffer_bytes']


def settle(relay, quiet=0.15 * PAUSE):
    """What is held once it does not change any more."""
    last, since = held(relay), time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(0.02)
        now = held(relay)
        if now != last:
            last, since = now, time.monotonic()
    return last


class Peak:
    """The most that was held meanwhile, as seen by somebody who looks all the time."""

    def __init__(self, relay):
        self.relay, self.bytes, self.rss, self.stop = relay, 0, 0, threading.Event()
        self.rss_before = relay.rss_kib()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self.stop.wait(0.02):
            self.bytes = max(self.bytes, held(self.relay))
            self.rss = max(self.rss, self.relay.rss_kib())

    @property
    def grown(self):
        """Resident memory, in bytes."""
        return max(0, self.rss - self.rss_before) * 1024

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def egress():
    """Of one connection: sealed records up to TX_HIGH and one more, control frames behind them."""
    return figures.held(figures.TX_HIGH + figures.RECORD_SEALED_MAX, pieces=True) + \
        figures.held(figures.CTL_MAX, pieces=True)


def queue():
    """Of one direction of a circuit: a window, in chunks that are half full at least, and the one
    that is being filled on either shard."""
    room = figures.CHUNK_LARGE_BYTES - figures.sizeof_chunk
    return 2 * CREDIT * figures.CHUNK_LARGE_BYTES // room + 2 * figures.CHUNK_LARGE_BYTES


# ---- a circuit's queue --------------------------------------------------------------------------

def frames(sid, data, size):
    return b''.join(HEADER.pack(0, DATA, 0, sid, len(data[at:at + size])) + data[at:at + size]
                    for at in range(0, len(data), size))


def fill(stream, size):
    """Sends bodies of `size` until nobody takes more; all that was sent."""
    session, sent, since = stream.session, b'', time.monotonic()
    while time.monotonic() - since < (0.12 if size > 100 else 0.4) * PAUSE:
        with session.cond:
            data = os.urandom(min(stream.credit, CREDIT // 2))
            stream.credit -= len(data)
            plain = frames(stream.sid, data, size)
            for at in range(0, len(plain), 65519):
                session.sealed(plain[at:at + 65519])
        if data:
            sent, since = sent + data, time.monotonic()
        else:
            time.sleep(0.02)
    return sent


def open_window(stream):
    with stream.session.cond:
        stream.auto_window = True
        stream._return_credit(0)


@pytest.mark.sanitize
@pytest.mark.parametrize('size', [1, 500, 2017, 4096, 9000, 65524])
def test_libp2p_75_a_direction_holds_one_window_whatever_its_frames(relay, placement, size):
    """Small frames must not cost a chunk each. Then the target takes it all, unaltered."""
    circuits = 3
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target:
        reserve(target)
        pairs = [join(source, target) for _ in range(circuits)]
        sent = [fill(near, size) for near, _ in pairs]
        now = settle(relay)
        waiting = sum(len(s) for s in sent) - sum(len(far.inbuf) for _, far in pairs)
        assert circuits * CREDIT * 0.49 <= waiting <= circuits * CREDIT, waiting
        assert waiting <= now <= circuits * queue() + 2 * egress() * (size < 100), (now, waiting)
        assert source.ping(size) < 1 * SLOW and ping(target.open(PING_PROTOCOL))
        for (_, far), data in zip(pairs, sent):
            open_window(far)
            assert far.recv(len(data), 20 * SLOW) == data
    relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')


def test_libp2p_75_bytes_that_come_one_by_one_share_a_chunk(relay, placement):
    """Each in a record and a turn of its own, for a target that takes nothing."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target:
        reserve(target)
        near, far = join(source, target)
        first = os.urandom(CREDIT - far.rx_bytes)  # its window is shut to the byte behind these
        near.send(first)
        assert far.recv(len(first)) == first
        echo, before, data = source.open(PING_PROTOCOL), settle(relay), os.urandom(400)
        for byte in data:
            near.send(bytes([byte]))
            assert ping(echo)
        assert not far.inbuf
        assert settle(relay) - before <= 2 * figures.CHUNK_LARGE_BYTES
        open_window(far)
        assert far.recv(len(data)) == data


# ---- egress -------------------------------------------------------------------------------------

def queued(relay, session):
    name = '%s:%d' % session.local
    return [row['queued_bytes'] for row in relay.conns() if row['remote'] == name][0]


@pytest.mark.sanitize
def test_libp2p_75_a_target_that_accepts_and_never_reads(relay, placement):
    """Its socket, not its window: what waits for it is a window of each circuit and TX_HIGH of the
    connection, and its sources are answered and served elsewhere as ever."""
    circuits = 8
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target, \
            relay.connect(shard=placement.target) as other:
        for session in (target, other):
            reserve(session)
        pairs = [join(source, target) for _ in range(circuits)]
        good, its_far = join(source, other)
        target.pause()
        sent = [fill(near, 16384) for near, _ in pairs]
        now = settle(relay)
        assert max(map(len, sent)) <= 3 * CREDIT
        assert now <= circuits * queue() + egress(), now
        assert now >= circuits * CREDIT / 2, 'the kernel took it all: %d' % now
        high = figures.TX_HIGH + figures.RECORD_SEALED_MAX
        assert figures.TX_HIGH / 2 < queued(relay, target) <= high
        for value in range(5):
            assert source.ping(value) < 0.5 * SLOW
        block = os.urandom(MIB)
        good.send(block)
        assert its_far.recv(MIB) == block
        target.resume()
        for (_, far), data in zip(pairs, sent):
            assert far.recv(len(data), 20 * SLOW) == data


def deaf(relay, **options):
    """A session that writes, blocking, and reads nothing."""
    session = relay.connect(**options)
    session.pause()
    session.sock.setblocking(True)
    session.sock.settimeout(5 * SLOW)
    return session


def asks(kind):
    """Plaintexts without end, each of which asks for an answer."""
    ident, name = mss(MSS, IDENTIFY), mss(MSS, PING_PROTOCOL)
    if kind == 'echo':
        yield HEADER.pack(0, DATA, SYN, 1, len(name)) + name
        while True:
            yield HEADER.pack(0, DATA, 0, 1, 320) + bytes(320) + HEADER.pack(0, WINDOW, 0, 1, 320)
    for sid in range(1, 1 << 30, 2):
        yield HEADER.pack(0, DATA, SYN | FIN, sid, len(ident)) + ident


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['identify', 'echo'])
def test_ctl_max_who_asks_and_never_reads_holds_an_egress_queue_and_is_closed(start, kind):
    relay, count = start(), 6
    sessions = [deaf(relay) for _ in range(count)]

    def ask(session):
        source = asks(kind)
        try:
            for _ in range(20000):  # in small bites: answers to one turn's are a bound of their own
                plain = b''.join(next(source) for _ in range(10))
                session.sock.sendall(session.noise.seal(plain))
                time.sleep(0.002)
        except OSError as e:  # reset by the relay
            ended.append(repr(e))
    ended = []
    with Peak(relay) as peak:
        threads = [threading.Thread(target=ask, args=(s,)) for s in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for session in sessions:
        session.sock.close()
    assert len(ended) == count, ended
    assert count * figures.TX_HIGH / 3 < peak.bytes <= count * egress(), peak.bytes
    relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')
    assert relay.metrics()['sluice_connections_ended_total{cause="slow"}'] == count


# ---- ingress ------------------------------------------------------------------------------------

def half_record(session, size=figures.INPUT_MAX - 1, step=0):
    """All but the last byte of the longest record, at once or in steps; the byte."""
    wire = session.noise.seal(HEADER.pack(0, WINDOW, 0, 999999, 0) * ((size - 18 + 1) // 12))
    wire = wire[:size + 1]
    for at in range(0, len(wire) - 1, step or len(wire)):
        session.raw(wire[at:min(at + (step or len(wire)), len(wire) - 1)])
        if step:
            time.sleep(0.0005)
    return wire[-1:]


@pytest.mark.parametrize('seconds', [0, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize('step', [0, 1450, 2017])
def test_input_max_half_a_record_is_held_as_long_as_there_is_memory(start, step, seconds):
    """Hundreds of the longest records without their last byte: exactly these bytes are held, for a
    minute too; with the byte they are records like any other."""
    relay, count = start(), 200 if not step else 30
    sessions = crowd(relay, count)
    before = relay.rss_kib()
    last = [half_record(s, step=step) for s in sessions]
    figure = count * figures.held(figures.INPUT_MAX, pieces=step > 0)
    relay.until(lambda: held(relay) >= count * (figures.INPUT_MAX - 30), 10, 'the halves')
    assert settle(relay) <= figure
    receive = 2 * figures.RECV_BUFS * figures.RECV_BUF_BYTES  # touched as they are first used
    assert (relay.rss_kib() - before) * 1024 <= figure + receive + MIB
    time.sleep(seconds)
    with relay.connect() as good:
        assert reserve(good).status == OK
    for session, byte in zip(sessions, last):
        session.raw(byte)
    assert all(session.ping(i) for i, session in enumerate(sessions))
    relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')
    for session in sessions:
        session.close()


def test_noise_handshake_max_half_a_handshake(start):
    """Message 3 without its last byte, from many; a longer one is not waited for."""
    relay, count = start(), 150
    most = figures.NOISE_HANDSHAKE_MAX + 2

    def begin(size):
        tcp = relay.tcp()
        tcp.send(mss(MSS, NOISE) + b'\x00\x20' + Key().peer_id[4:36])
        assert read_mss(tcp) == MSS and read_mss(tcp) == NOISE
        tcp.recv(int.from_bytes(tcp.recv(2), 'big'))
        tcp.send((size - 2).to_bytes(2, 'big') + bytes(size - 3))
        return tcp
    crowd_of = [begin(most) for _ in range(count)]
    relay.until(lambda: held(relay) >= count * (most - 1), 5, 'the halves')
    assert settle(relay) <= count * figures.held(most)
    longer = begin(most + 1)
    assert longer.closed_within(2 * SLOW) is not None
    for tcp in crowd_of:
        tcp.send(b'\0')  # wrong, but whole
        assert tcp.closed_within(2 * SLOW) is not None
        tcp.close()
    relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')


# ---- streams ------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_stream_input_max_half_messages_on_every_stream(relay, placement):
    """Names on all 512 streams, hop messages on HOP_STREAMS_MAX of them, one byte short each."""
    name = uv(figures.MSS_FRAME_MAX) + bytes(figures.MSS_FRAME_MAX - 1)
    message = uv(figures.HOP_MSG_MAX) + bytes(figures.HOP_MSG_MAX - 1)
    with relay.connect(shard=placement.target) as session:
        streams = [session.stream() for _ in range(512)]
        for stream in streams:
            stream.send(name)
        relay.until(lambda: held(relay) >= 512 * len(name), 5, 'half names')
        assert settle(relay) <= 512 * figures.held(len(name), pieces=False)
        for stream in streams:
            stream.reset()
        relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')

        hops = [session.open(HOP, message) for _ in range(figures.HOP_STREAMS_MAX)]
        relay.until(lambda: held(relay) >= len(hops) * len(message), 5, 'half messages')
        assert settle(relay) <= len(hops) * figures.held(len(message))
        extra = session.open(HOP, message)
        assert extra.wait_reset(3) and not any(s.rst for s in hops) and session.alive()
        hops[0].reset()
        session.open(HOP, message)
        assert session.alive()
    relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')


def test_stop_streams_max_the_257th_circuit_of_a_connection_is_203(start, placement):
    relay, most = start('--max-circuits-per-peer', 0), figures.STOP_STREAMS_MAX
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        pairs = [join(source, target) for _ in range(most)]
        assert dial(source, target.key.peer_id)[0].status == FAILED
        pairs[7][0].reset()
        assert pairs[7][1].wait_reset(3)
        near, far = join(source, target)
        near.send(b'free again')
        assert far.recv(10) == b'free again'


@pytest.mark.sanitize
def test_syn_burst_a_flood_of_streams_ends_its_connection(relay, placement):
    """So many are opened, as many more are refused, then it is over; the table stays small."""
    with relay.connect(shard=placement.target) as flood, relay.connect() as other:
        before, began, sid = relay.metrics(), time.monotonic(), 1
        with Peak(relay) as peak:
            while not flood.dead and time.monotonic() - began < 20 * SLOW:
                flood.sealed(b''.join(HEADER.pack(0, WINDOW, SYN, at, 0) +
                                      HEADER.pack(0, WINDOW, RST, at, 0)
                                      for at in range(sid, sid + 1000, 2)))
                sid += 1000
                flood.wait(lambda: flood.dead or not flood.out, 5)
        assert flood.wait_dead(3) and flood.goaway == PROTOCOL_ERROR
        ms, after = (time.monotonic() - began) * 1000, relay.metrics()
        for what, burst, refill in (('in', figures.SYN_BURST, figures.SYN_MS),
                                    ('refused', figures.REFUSED_BURST, figures.REFUSED_MS)):
            name = 'sluice_streams_%s_total' % what
            assert burst <= after[name] - before[name] <= burst + ms / refill + 1, what
        assert peak.bytes <= 2 * egress()
        assert other.alive() and reserve(other).status == OK


def test_negotiate_and_linger_ms_no_stream_stays_half_done(start):
    """Each silence on a stream of its own, at the same time."""
    relay = start()
    with relay.connect() as session:
        began, due = time.monotonic(), {}

        def add(name, stream, limit_ms):
            due[name] = (stream, limit_ms / 1000)
            return stream
        add('nothing', session.stream(), figures.STREAM_NEGOTIATE_MS)
        add('header', session.stream(), figures.STREAM_NEGOTIATE_MS).send(mss(MSS))
        add('push', session.open(PUSH), figures.PUSH_MS)
        add('identify without FIN', session.open(IDENTIFY), figures.STREAM_LINGER_MS)
        add('hop after its answer', session.open(HOP, hop_connect(Key().peer_id)),
            figures.STREAM_LINGER_MS)
        hop = session.open(HOP)
        trickle = session.stream()
        for name, (stream, seconds) in sorted(due.items(), key=lambda d: d[1][1]):
            while not stream.rst and time.monotonic() - began < seconds + 2 * SLOW:
                trickle.send(b'\x20')  # bytes that complete nothing extend nothing
                stream.session.wait(lambda s=stream: s.rst, 0.5)
            assert stream.rst, name
            assert seconds - 0.2 <= time.monotonic() - began <= seconds + 1.5 * SLOW, name
        assert not hop.rst and session.alive()


@pytest.mark.long
def test_hop_message_ms_a_hop_stream_without_its_message_is_reset(relay):
    with relay.connect() as session:
        hop, began = session.open(HOP, b'\x02\x08'), time.monotonic()
        assert hop.wait_reset(figures.HOP_MESSAGE_MS / 1000 + 3)
        assert time.monotonic() - began >= figures.HOP_MESSAGE_MS / 1000 - 1


def test_close_linger_ms_who_does_not_read_the_goodbye_is_gone_anyway(relay):
    session = relay.connect()
    session.pause()
    name = '%s:%d' % session.local
    session.frame(9, 0, 0, 0)  # an unknown type: GoAway and the end
    began = time.monotonic()
    relay.until(lambda: name not in relay.shards_by_remote(), 5, 'the connection gone')
    assert time.monotonic() - began <= figures.CLOSE_LINGER_MS / 1000 + 0.7 * SLOW
    session.close()


# ---- 74: a crowd --------------------------------------------------------------------------------

PER_IDLE_PEER = 4096  # of process memory: what is promised (libp2p.md §16.3)


def load(relay, *args):
    return subprocess.Popen([str(a) for a in (
        BUILD / 'tools' / 'load-p2p', '%s:%d' % relay.at, '--quiet', '--sources', 16,
        '--duration', 300, *args)], stdout=subprocess.DEVNULL)


def test_libp2p_74_ten_thousand_idle_peers_and_a_thousand_circuits(start):
    """Each with a reservation; of the circuits, each has two connections of its own and says
    something every second. Nothing is buffered for any of them."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 16384:
        pytest.skip('12 000 connections need as many descriptors: ulimit -Hn 16384')
    relay, idle, circuits = start(), 10000, 1000
    before, loads = relay.rss_kib(), []
    try:
        loads.append(load(relay, '--mode', 'idle', '--steps', idle, '--settle', 0, '--seed', 1))
        loads.append(load(relay, '--mode', 'message', '--circuits', circuits, '--pairs', circuits,
                          '--interval-us', 1000000, '--sleep', '--seed', 2))

        def all_there():
            assert all(one.poll() is None for one in loads), 'a load ended early'
            metrics = relay.metrics()
            return metrics['relay_active_circuits'] == circuits and \
                metrics['sluice_reservations'] == idle + circuits
        relay.until(all_there, 60, 'the crowd')
        said = relay.metrics()['relay_bandwidth_bytes_total']
        relay.until(lambda: relay.metrics()['relay_bandwidth_bytes_total'] > said + 100000, 10,
                    'messages')
        conns = relay.metrics()['sluice_connections{transport="tcp"}']
        assert conns == idle + 2 * circuits
        assert held(relay) <= 100 * figures.CHUNK_LARGE_BYTES, 'idle peers have no buffers'
        per_shard = (figures.RECV_BUFS * figures.RECV_BUF_BYTES + figures.SCRATCH_BYTES +
                     figures.JOIN_BYTES + figures.STREAM_JOIN_BYTES +
                     figures.SENDS_PER_TURN * figures.sizeof_send_args)
        figure = (2 * per_shard + conns * PER_IDLE_PEER +
                  circuits * (figures.sizeof_circuit + 2 * figures.sizeof_stream))
        grown = (relay.rss_kib() - before) * 1024
        assert grown <= figure, (grown, figure)
        with relay.connect(shard=0) as one, relay.connect(shard=1) as other:
            reserve(other)
            near, far = join(one, other)
            near.send(b'among thousands')
            assert far.recv(15) == b'among thousands'
    finally:
        for one in loads:
            one.terminate()
            one.wait()
    relay.until(lambda: relay.metrics()['sluice_connections{transport="tcp"}'] == 0, 20, 'no one')
    assert held(relay) == 0
