"""libp2p.md §19, checks 40, 59, 60, 63 and 64: limits that end something, exactly and on time, and
slots that come back whichever way a circuit ends."""

import os
import threading
import time

import pytest

import figures
from circuit import auto_stop, dial, join, reserve, serve_stop
from rawp2p import ACK, DATA, HEADER, PING, RST, SYN, WINDOW, Closed
from wire import (FAILED, HOP, LIMIT, MSS, NO_RESERVATION, OK, STOP, HopMessage, Key, hop_connect,
                  hop_reserve, lp, mss, stop_status, unpb)

MIB = 1 << 20
PROTOCOL_ERROR = 1
ENDED = 'sluice_circuits_closed_total{reason="limit_%s"}'


# ---- 59: bytes ----------------------------------------------------------------------------------

def pour(stream, data, chunk):
    """Sends until the circuit is reset."""
    try:
        stream.send(data, chunk=chunk)
    except Closed:
        pass


@pytest.mark.sanitize
@pytest.mark.parametrize('chunk', [1, 65524])
@pytest.mark.parametrize('count', ['per-direction', 'sum'])
def test_libp2p_59_exactly_n_bytes_and_then_rst(start, placement, count, chunk):
    """And dusk_21. N itself is no offence, also in frames of one byte; the byte behind it is not
    delivered."""
    relay = start('--circuit-bandwidth-mb', 1, '--byte-count', count)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).limit == (0, MIB)
        near, far = join(source, target)
        back = os.urandom(MIB if count == 'per-direction' else 300000)
        far.send(back)
        assert near.recv(len(back)) == back
        allowed = MIB if count == 'per-direction' else MIB - len(back)
        bulk, before = os.urandom(allowed - 50), far.rx_bytes
        near.send(bulk)
        assert far.recv(len(bulk)) == bulk
        last = os.urandom(50 + 70000 if chunk > 1 else 55)
        pour(near, last[:50], chunk)
        assert far.recv(50) == last[:50]
        assert not far.rst and not near.rst and source.alive(), 'N itself is no offence'
        pour(near, last[50:], chunk)
        assert far.wait_reset(5) and near.wait_reset(5)
        assert far.rx_bytes - before == allowed and not far.eof
        assert source.alive() and target.alive()
        relay.until(lambda: relay.metrics()[ENDED % 'bytes'] == 1, 3, 'the end counted')
        assert relay.metrics()['relay_bandwidth_bytes_total'] == len(back) + allowed


@pytest.mark.parametrize('count', ['per-direction', 'sum'])
def test_libp2p_59_with_both_directions_at_full_speed(start, placement, count):
    """Across shards, in sum, both count on one number."""
    relay = start('--circuit-bandwidth-mb', 1, '--byte-count', count)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        for i in range(5):
            near, far = join(source, target)
            before = near.rx_bytes, far.rx_bytes
            data = os.urandom(2 * MIB)
            threads = [threading.Thread(target=pour, args=(stream, data, 7000 + i))
                       for stream in (near, far)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert near.wait_reset(5) and far.wait_reset(5)
            got = near.rx_bytes - before[0], far.rx_bytes - before[1]
            assert data.startswith(near.inbuf) and data.startswith(far.inbuf)
            if count == 'sum':
                assert sum(got) == MIB, got
            else:
                assert max(got) == MIB, got


def test_libp2p_59_early_bytes_count_too(start, placement):
    """What the source sends along with CONNECT belongs to the circuit."""
    relay = start('--circuit-bandwidth-mb', 1)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        early, rest = os.urandom(100000), os.urandom(MIB)
        auto_stop(target)
        _, near = dial(source, target.key.peer_id, first=early)
        far = target.circuits[0]
        pour(near, rest, 65524)
        assert far.wait_reset(5)
        assert bytes(far.inbuf) == (early + rest)[:MIB]


# ---- 60: time -----------------------------------------------------------------------------------

def test_libp2p_60_a_busy_circuit_ends_in_5_s(start):
    """At full speed both ways, on one shard, across two, and with a target that takes nothing, at
    the same time."""
    relay = start('--circuit-duration-secs', 5)
    ends, threads, sessions = {}, [], []

    def busy(name, source, target):
        reserve(target)
        near, far = join(source, target)
        began, data = time.monotonic(), bytes(MIB)
        near.sink = far.sink = len

        def pump(stream):
            try:
                while time.monotonic() - began < 8:
                    stream.send(data, timeout=8)
            except (Closed, TimeoutError):
                pass
        pumps = [threading.Thread(target=pump, args=(s,), daemon=True) for s in (near, far)]
        for thread in pumps:
            thread.start()
        for stream in (near, far):
            stream.wait_reset(8)
            ends.setdefault(name, []).append((time.monotonic() - began, far.rx_bytes))
    for name, shards, window in (('same', (0, 0), True), ('cross', (0, 1), True),
                                 ('stuck', (0, 1), False)):
        pair = relay.connect(shard=shards[0]), relay.connect(shard=shards[1], auto_window=window)
        sessions += pair
        threads.append(threading.Thread(target=busy, args=(name, *pair)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(session.alive() for session in sessions), 'only circuits end'
    for session in sessions:
        session.close()
    assert len(ends) == 3
    for name, both in ends.items():
        assert len(both) == 2
        for seconds, moved in both:
            assert 4.5 <= seconds <= 5.5, ends
            assert moved > (MIB if name != 'stuck' else 0), 'it was not busy: %s' % ends
    relay.until(lambda: relay.metrics()[ENDED % 'time'] == 3, 3, 'the ends counted')


# ---- 63: slots ----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def narrow_relay(tmp_path_factory):
    """One circuit in all: whoever keeps a slot stops everybody else."""
    from relay import Relay
    live = Relay(tmp_path_factory.mktemp('narrow'), '--max-circuits', 1,
                 '--max-circuits-per-peer', 1).start()
    yield live
    live.check()
    assert live.stop() == 0


class Pair:
    """A source and a target with the same keys throughout, connected again when they were cut."""

    def __init__(self, relay, placement):
        self.relay, self.placement = relay, placement
        self.keys, self.source, self.target = (Key(), Key()), None, None

    def ready(self):
        if self.source is None or self.source.dead:
            self.source = self.relay.connect(self.keys[0], self.placement.source)
        if self.target is None or self.target.dead:
            self.target = self.relay.connect(self.keys[1], self.placement.target)
            assert reserve(self.target).status == OK
        self.target.auto_mss = True
        serve_stop(self.target)
        return self

    def reach(self, stage):
        """A circuit that has come so far; its two streams."""
        self.target.auto_mss = stage != 'asked'
        near = self.source.open(HOP, hop_connect(self.target.key.peer_id))
        far = self.target.accept()
        if stage == 'asked':  # not even the name of the protocol is answered
            return near, far
        assert far.message()
        if stage == 'half a status':
            far.send(stop_status(OK)[:3])
        if stage == 'open':
            far.send(stop_status(OK))
            assert HopMessage(near.message()).status == OK
            near.send(b'hello')
            assert far.recv(5) == b'hello'
        return near, far

    def works(self):
        """The same two peers have a circuit again, and end it."""
        self.ready()
        auto_stop(self.target)
        self.target.auto_mss = True
        answer, near = dial(self.source, self.target.key.peer_id)
        if answer.status != OK:
            assert answer.status in (LIMIT, NO_RESERVATION), answer.status
            return False
        near.send(b'?')
        far = self.target.circuits[-1]
        assert far.recv(1) == b'?'
        near.close_write()
        far.wait_eof()
        far.close_write()
        near.wait_eof()
        return True

    def close(self):
        for session in (self.source, self.target):
            if session:
                session.close()


ENDS = {
    'source resets': lambda near, far: near.reset(),
    'source hangs up': lambda near, far: near.session.close(),
    'source is cut': lambda near, far: near.session.close(reset=True),
    'target resets': lambda near, far: far.reset(),
    'target hangs up': lambda near, far: far.session.close(),
    'target is cut': lambda near, far: far.session.close(reset=True),
}


@pytest.mark.sanitize
@pytest.mark.parametrize('end', ENDS)
def test_libp2p_63_an_abort_at_any_stage_frees_the_slots(narrow_relay, placement, end):
    """Total, source's and target's: each is one, and both peers stay the same throughout."""
    pair = Pair(narrow_relay, placement)
    with narrow_relay.connect() as stranger:
        for stage in ('asked', 'agreed', 'half a status', 'open'):
            near, far = pair.ready().reach(stage)
            assert dial(stranger, pair.target.key.peer_id)[0].status == LIMIT, \
                '%s: a pending circuit counts' % stage
            ENDS[end](near, far)
            narrow_relay.until(pair.works, 3, 'a circuit after "%s", %s' % (stage, end))
    pair.close()


def refuse(status):
    def by(pair):
        near, far = pair.reach('agreed')
        far.send(stop_status(status))
        assert HopMessage(near.message()).status != OK
        near.close_write()
    return by


def says_na(pair):
    del pair.target.protocols[STOP]
    assert dial(pair.source, pair.target.key.peer_id)[0].status == FAILED


def talks_nonsense(pair):
    near, far = pair.reach('agreed')
    far.send(lp(b'\xff' * 20))
    assert HopMessage(near.message()).status == FAILED


def finishes_instead(pair):
    near, far = pair.reach('agreed')
    far.close_write()
    assert HopMessage(near.message()).status == FAILED


def connect_and_rst(pair):
    """All of it in one record, so that the relay never sees one without the other."""
    body = mss(MSS, HOP) + hop_connect(pair.target.key.peer_id)
    for _ in range(20):
        stream = pair.source.stream('data')
        pair.source.sealed(HEADER.pack(0, DATA, SYN, stream.sid, len(body)) + body +
                           HEADER.pack(0, WINDOW, RST, stream.sid, 0))
    assert pair.source.alive()


def fin_and_reset(pair):
    near, far = pair.reach('agreed')
    near.close_write()
    near.reset()
    assert far.wait_reset(3)


def both_finish(pair):
    near, far = pair.reach('open')
    far.close_write()
    near.wait_eof()
    near.close_write()
    far.wait_eof()


def goes_beyond_the_window(pair):
    near, _ = pair.reach('open')
    pair.target.auto_window = False
    size = figures.YAMUX_WINDOW * 3
    for _ in range(3):
        pair.source.frame(DATA, 0, near.sid, size // 3, bytes(size // 3))
    assert pair.source.wait_dead(3)
    pair.target.close()


OTHER_WAYS = [refuse(LIMIT), refuse(NO_RESERVATION), refuse(999), says_na, talks_nonsense,
              finishes_instead, connect_and_rst, fin_and_reset, both_finish, goes_beyond_the_window]


def test_libp2p_63_refusals_and_ends_free_the_slots(narrow_relay, placement):
    pair = Pair(narrow_relay, placement)
    for way in OTHER_WAYS:
        way(pair.ready())
        if way is OTHER_WAYS[1]:  # its 204 costs the target its reservation
            pair.target.close()
        narrow_relay.until(pair.works, 3, 'a circuit after %r' % way)
    pair.close()


@pytest.mark.long
def test_libp2p_63_a_silent_target_frees_the_slots(narrow_relay, placement):
    pair = Pair(narrow_relay, placement)
    for stage in ('asked', 'agreed', 'half a status'):
        near, far = pair.ready().reach(stage)
        assert HopMessage(near.message(timeout=15)).status == FAILED
        assert far.wait_reset(3)
        narrow_relay.until(pair.works, 3, 'a circuit after a silence, %s' % stage)
    pair.close()


# ---- 64: the limit on the wire ------------------------------------------------------------------

def three_messages(relay, placement):
    """RESERVE's OK, the STOP that the target gets, and CONNECT's OK, as they are on the wire."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        stream = target.open(HOP, hop_reserve())
        reserved = stream.message()
        stream.wait_eof()
        stream.close_write()
        serve_stop(target)
        near = source.open(HOP, hop_connect(target.key.peer_id))
        far = target.accept()
        stop = far.message()
        far.send(stop_status(OK))
        return reserved, stop, near.message()


def test_libp2p_64_without_limits_the_field_is_absent(relay, placement):
    """Even a limit of zeroes makes a circuit a limited one for go (libp2p.md §11.4)."""
    reserved, stop, connected = (unpb(m) for m in three_messages(relay, placement))
    assert set(reserved) == {1, 3, 5} and reserved[5] == [OK]
    assert set(stop) == {1, 2}
    assert set(connected) == {1, 5} and connected[5] == [OK]


def test_libp2p_64_descord_with_both_limits_off(start, placement):
    relay = start('--circuit-duration-secs', 0, '--circuit-bandwidth-mb', 0, preset='descord')
    reserved, stop, connected = (unpb(m) for m in three_messages(relay, placement))
    assert 4 not in reserved and 3 not in stop and 4 not in connected


@pytest.mark.parametrize('flags, want', [(('--circuit-duration-secs', 7), (7, 0)),
                                         (('--circuit-bandwidth-mb', 3), (0, 3 * MIB))])
def test_libp2p_64_one_limit_is_told_in_all_three(start, placement, flags, want):
    relay = start(*flags)
    reserved, stop, connected = (unpb(m) for m in three_messages(relay, placement))
    for fields, tag in ((reserved, 4), (stop, 3), (connected, 4)):
        limit = unpb(fields[tag][0])
        assert (limit.get(1, [0])[0], limit.get(2, [0])[0]) == want
        assert len(fields[tag]) == 1


# ---- 40: pings ----------------------------------------------------------------------------------

def test_libp2p_40_the_policy_is_a_burst_and_one_a_second(relay):
    """The burst is answered to the last one and forgiven; a flood ends its own connection, with a
    reason, and nobody else's."""
    burst = figures.MUX_PING_BURST
    with relay.connect(shard=0) as flood, \
            relay.connect(shard=1) as target, relay.connect(shard=0) as source:
        reserve(target)
        near, far = join(source, target)
        before = relay.metrics()['sluice_connections_ended_total{cause="ping_flood"}']
        began = time.monotonic()
        flood.sealed(b''.join(HEADER.pack(0, PING, SYN, 0, i) for i in range(burst)))
        assert flood.wait(lambda: len(flood.pongs) == burst, 3), len(flood.pongs)
        assert [p[:2] for p in flood.pongs] == [(i, ACK) for i in range(burst)]
        time.sleep(2.1 * figures.MUX_PING_MS / 1000)
        assert flood.ping(7777) < 1 and flood.ping(7778) < 1
        while not flood.dead and time.monotonic() - began < 10:
            flood.frame(PING, SYN, 0, 5)
        assert flood.wait_dead(3)
        seconds = time.monotonic() - began
        assert flood.goaway == PROTOCOL_ERROR
        assert len(flood.pongs) <= burst + 1 + seconds * 1000 / figures.MUX_PING_MS
        assert relay.metrics()['sluice_connections_ended_total{cause="ping_flood"}'] == before + 1
        near.send(b'undisturbed')
        assert far.recv(11) == b'undisturbed'
