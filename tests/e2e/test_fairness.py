"""libp2p.md §20.3 and §20.4, and the second half of check 75: who is slow, or greedy, is in nobody's
way. Order is measured in bytes where it can be, since those do not depend on the machine; times
are compared with those of an idle relay beside it."""

import pathlib
import statistics
import subprocess
import threading
import time

import pytest

import figures
from circuit import join, ping, reserve
from rawp2p import CREDIT, SYN, WINDOW
from rawp2p import PING as MUX_PING
from relay import BUILD, SLOW
from test_bounds import egress, fill, open_window, queue, settle
from wire import PING

MIB = 1 << 20


def carry(near, far, size):
    """Seconds to move so much."""
    far.sink, before, began = len, far.rx_bytes, time.monotonic()
    near.send(bytes(size), timeout=60 * SLOW, chunk=16384)
    assert far.session.wait(lambda: far.rx_bytes - before >= size or far.rst, 60 * SLOW)
    assert far.rx_bytes - before == size
    return time.monotonic() - began


# ---- 75: a slow reader --------------------------------------------------------------------------

class Sip(threading.Thread):
    """Reads 1 KiB a second: of a stream, by what it grants, or of a whole socket."""

    def __init__(self, stream, socket):
        super().__init__(daemon=True)
        self.stream, self.socket, self.over = stream, socket, threading.Event()

    def run(self):
        session = self.stream.session
        while not self.over.wait(0.25):
            if self.socket:
                session.sock.setblocking(True)
                with session.cond:
                    session.cipher += session.sock.recv(256)
                    session._decrypt()
                    session.cond.notify_all()
                session.sock.setblocking(False)
            else:
                session.frame(WINDOW, 0, self.stream.sid, 256)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


@pytest.mark.sanitize
@pytest.mark.parametrize('how', ['its own connection', 'a shared connection', 'a slow socket'])
def test_libp2p_75_a_slow_reader_slows_nobody(start, placement, how):
    """1 KiB/s beside circuits that could not be faster: its source's connection carries one of
    them, and so does its target's where that is shared."""
    relay, size = start(), (12 << 20) // SLOW
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as fast, \
            relay.connect(shard=placement.target) as own:
        slow = fast if how == 'a shared connection' else own
        for session in (fast, own):
            reserve(session)
        near, far = join(source, fast)
        alone = min(carry(near, far, size) for _ in range(2))
        slow.auto_window = how == 'a slow socket'
        its_near, its_far = join(source, slow)
        if how == 'a slow socket':
            slow.pause()
        sent = fill(its_near, 16384)
        echo = source.open(PING)
        before = its_far.rx_bytes
        with Sip(its_far, how == 'a slow socket'):
            beside, pings = [], []
            for value in range(2):
                beside.append(carry(near, far, size))
                pings.append(source.ping(value))
                assert ping(echo)
            assert min(beside) <= 2 * alone + 0.2, (alone, beside)
            assert max(pings) < 0.3 * SLOW, pings
            its_near.send(bytes(min(its_near.credit, 1024)))
            time.sleep(0.6)
            held_now = settle(relay)
        # one window of its circuit, and its socket's queue when that is what is slow
        assert held_now <= queue() + (egress() if how == 'a slow socket' else 0), held_now
        assert held_now >= CREDIT / 4, 'it was not slow'
        if how == 'a slow socket':
            slow.resume()
            assert its_far.recv(len(sent), 20 * SLOW) == sent
        else:
            assert 0 < its_far.rx_bytes - before <= 8192 * SLOW, 'it did read, and slowly'
            open_window(its_far)
            assert its_far.recv(len(sent), 20 * SLOW) == sent


# ---- §20.4: in turns ----------------------------------------------------------------------------

def handed_over(relay, session):
    """Ciphertext that was sealed for this connection so far."""
    name = '%s:%d' % session.local
    row = [row for row in relay.conns() if row['remote'] == name][0]
    return row['tx_bytes'] + row['queued_bytes']


class Order:
    """What arrives on a session, in order: (stream, bytes)."""

    def __init__(self, session, streams):
        self.log, self.session = [], session
        for stream in streams:
            stream.sink = lambda body, stream=stream: self.log.append((stream, len(body)))

    def before(self, stream):
        """Bytes of others before the first ones of this stream."""
        log = list(self.log)
        first = [one for one, _ in log].index(stream)
        return sum(n for _, n in log[:first])

    def total(self):
        return sum(n for _, n in self.log)


class Crammed:
    """A target whose socket is full, and circuits to it that all have bytes waiting and credit to go
    on: only their turns decide. The first one fills what the kernel takes."""

    def __init__(self, relay, source, target, sizes):
        self.relay, self.target = relay, target
        reserve(target)
        self.pairs = [join(source, target) for _ in [0] + sizes]
        self.small = join(source, target)
        self.echo = target.open(PING)
        streams = [far for _, far in self.pairs] + [self.small[1]]
        for far in streams:
            target.frame(WINDOW, 0, far.sid, 1 << 30)
            far.auto_window = False
        assert source.alive() and target.alive()
        self.order = Order(target, streams + [self.echo])
        target.pause()
        for (near, _), size in zip(self.pairs, [65524] + sizes):
            fill(near, size)
        self.waiting = settle(relay)
        assert self.waiting > len(self.pairs) * CREDIT / 3, 'nothing waits'
        self.sealed = handed_over(relay, target)

    def turn(self):
        """Payload that one turn of everybody brings at most."""
        return (len(self.pairs) + 1) * figures.RECORD_BODY


@pytest.mark.sanitize
def test_fairness_what_is_small_waits_for_one_turn_of_the_others(relay, placement):
    """Eight circuits have a window of bytes waiting for a socket that is full. What comes last, a
    few bytes on a ninth circuit and answers of the relay's, leaves before nearly all of that."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        crammed = Crammed(relay, source, target, [16384] * 7)
        pongs = watch_pongs(target, crammed.order)
        far, echo = crammed.small[1], crammed.echo
        crammed.small[0].send(b'small')
        echo.send(bytes(32))
        target.frame(MUX_PING, SYN, 0, 4711)
        time.sleep(0.2 * SLOW)
        target.resume()
        assert target.wait(lambda: pongs and {far, echo} <= {s for s, _ in crammed.order.log}, 10)
        # what was sealed already is encrypted in order and cannot be overtaken
        assert pongs[0] <= crammed.sealed
        assert crammed.order.before(echo) <= crammed.sealed
        assert crammed.order.before(far) <= crammed.sealed + crammed.turn()
        total = crammed.sealed + crammed.waiting / 2
        assert target.wait(lambda: crammed.order.total() > total, 10), 'nothing was overtaken'


def watch_pongs(session, order):
    """The bytes of `order` before each pong."""
    marks, original = [], session._header

    def header(version, kind, flags, sid, length):
        if kind == MUX_PING and not flags & SYN:
            marks.append(order.total())
        original(version, kind, flags, sid, length)
    session._header = header
    return marks


@pytest.mark.sanitize
def test_fairness_circuits_of_one_connection_share_it_evenly(relay, placement):
    """However different their frames are: while all have bytes none gets more than two turns
    ahead."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        crammed = Crammed(relay, source, target, [300, 2000, 16384, 65524])
        target.resume()
        got, total, spread = {far: 0 for _, far in crammed.pairs}, 0, []
        assert target.wait(lambda: crammed.order.total() > crammed.sealed + crammed.waiting / 2, 10)
        with target.cond:
            log = list(crammed.order.log)
        for stream, n in log:
            total += n
            if total > crammed.sealed and sum(got.values()) < len(got) * CREDIT / 3:
                got[stream] += n
                spread.append(max(got.values()) - min(got.values()))
        assert min(got.values()) > 0
        assert max(spread) <= 2 * figures.RECORD_BODY, (max(spread), sorted(got.values()))


# ---- 256 saturated circuits ---------------------------------------------------------------------

LOAD = BUILD / 'tools' / 'load-p2p'


class Bulk:
    """The native generator at full speed."""

    def __init__(self, relay, *args):
        self.proc = subprocess.Popen(
            [str(a) for a in (LOAD, '%s:%d' % relay.at, '--mode', 'bulk', '--quiet', '--json',
                              *args)], stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.communicate()


def kept_waiting(relay):
    """For each shard a function: seconds that its thread could have run and did not, because others
    had the cores."""
    out = {}
    for task in pathlib.Path('/proc/%d/task' % relay.proc.pid).iterdir():
        name = (task / 'comm').read_text().strip()
        if name.startswith('shard-'):
            out[int(name[6:])] = lambda path=task / 'schedstat': \
                int(path.read_text().split()[1]) / 1e9
    return out


def ping_both_ways(waited, session, echo, value, times):
    """A muxer's ping and a ping of the protocol; (without the machine's part, with it) gather."""
    for kind, ask in (('yamux', lambda: session.ping(value, 30)),
                      ('echo', lambda: ping(echo, timeout=30))):
        before, began = waited(), time.monotonic()
        assert ask()
        seconds = time.monotonic() - began
        times[kind].append((max(0, seconds - (waited() - before)), seconds))


@pytest.mark.parametrize('pairs', [2, 256])
def test_libp2p_31_pings_pass_256_saturated_circuits(start, pairs):
    """Of a peer that does nothing else, of one whose own circuit is stuck, of a source and of a
    target of bulk data; on each shard. Time in which others had the cores is not counted."""
    relay, rounds = start('--max-circuits-per-peer', 0), 25
    sessions, streams = [], []
    for shard in (0, 1):
        plain, source = relay.connect(shard=shard), relay.connect(shard=shard)
        stuck, busy = relay.connect(shard=shard, auto_window=False), relay.connect(shard=shard)
        reserve(stuck)
        reserve(busy)
        fill(join(source, stuck)[0], 16384)
        streams.append(join(source, busy))
        streams[-1][1].sink = len
        sessions += [(shard, session) for session in (plain, source, stuck, busy)]
    waited = kept_waiting(relay)
    echoes = [session.open(PING) for _, session in sessions]
    with Bulk(relay, '--circuits', 256, '--pairs', pairs, '--duration', 60) as bulk:
        relay.until(lambda: relay.metrics()['relay_active_circuits'] >= 256, 30, '256 circuits')
        moved, began = relay.metrics()['relay_bandwidth_bytes_total'], time.monotonic()
        times = {'yamux': [], 'echo': []}
        for value in range(rounds):
            for near, _ in streams:
                near.send(bytes(16384))
            for (shard, session), echo in zip(sessions, echoes):
                ping_both_ways(waited[shard], session, echo, value, times)
        seconds = time.monotonic() - began
        moved = relay.metrics()['relay_bandwidth_bytes_total'] - moved
        assert bulk.proc.poll() is None, 'the load ended early'
    assert moved > 20 * MIB / SLOW * seconds, 'not saturated: %d in %.1f s' % (moved, seconds)
    for kind, took in times.items():
        assert len(took) == rounds * len(sessions)
        assert statistics.median(own for own, _ in took) < 0.1 * SLOW, kind
        assert max(own for own, _ in took) < 0.1 * SLOW, (kind, sorted(took)[-5:])
    for _, session in sessions:
        session.close()
