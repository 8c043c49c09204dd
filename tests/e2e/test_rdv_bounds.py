"""Rendezvous, its bounds: limits per peer, namespace and in all, sizes, streams at once, requests
in pieces, and peers that flood, stall or do not read."""

import json
import subprocess
import time

import pytest

import rdv
from circuit import crowd
from rawp2p import Reset
from rdv import (MIB, OK, UNAVAILABLE, Closed, Peer, Reply, ask, begin, discover, finish, fresh,
                 record, register)
from relay import BUILD, SLOW, Relay, makes
from wire import MSS, Key, lp, mss, pb, uv

REQUEST_MAX = 65536
BIG = [b'\x04\x7f\x00\x00\x01\x06\x00\x01' * 20] * 48  # addresses of an 8 KiB envelope


def preset_of(name):
    return None if name == 'default' else name


@pytest.fixture(scope='module', params=['default', 'dusk'])
def live(request, tmp_path_factory):
    relay = Relay(tmp_path_factory.mktemp('rdv'), preset=preset_of(request.param)).start()
    relay.dusk = request.param == 'dusk'
    yield relay
    relay.check()
    assert relay.stop() == 0


@pytest.fixture
def peer(live):
    yield from makes(Peer, live)


# ---- limits --------------------------------------------------------------------------------------

@pytest.mark.parametrize('preset', ['default', 'dusk'])
def test_libp2p_70_limit_per_peer(start, preset):
    relay = start('--max-registrations-per-peer', 3, preset=preset_of(preset))
    ns = [fresh() for _ in range(4)]
    with Peer(relay) as one, Peer(relay) as two:
        for name in ns[:3]:
            one.registered(name)
        assert one.register(ns[3]).status == UNAVAILABLE
        one.registered(ns[0])  # again is not more
        two.registered(ns[3])  # and another has its own
        one.unregister(ns[1])
        one.registered(ns[3])
        assert one.register(ns[1]).status == UNAVAILABLE
        assert one.found(ns[1]).rows == []
    with Peer(relay, one.key) as again:  # the peer's, not the connection's
        assert again.register(ns[1]).status == UNAVAILABLE
    assert relay.stop() == 0
    relay.start()
    with Peer(relay, one.key) as again:
        assert again.register(ns[1]).status == UNAVAILABLE, 'counted after a restart, too'
        again.registered(ns[0])


@pytest.mark.parametrize('preset', ['default', 'dusk'])
def test_libp2p_70_limits_per_namespace_and_in_all(start, preset):
    relay = start('--max-registrations-per-namespace', 2, '--max-registrations', 4,
                  preset=preset_of(preset))
    first, second, third = fresh(), fresh(), fresh()
    with Peer(relay) as one, Peer(relay) as two, Peer(relay) as three:
        one.registered(first)
        two.registered(first)
        assert three.register(first).status == UNAVAILABLE
        two.registered(first)
        three.registered(second)
        one.registered(second)
        for who, ns in ((three, third), (two, third), (three, first)):
            assert who.register(ns).status == UNAVAILABLE
        one.registered(first)
        one.unregister(first)
        three.registered(first)
        assert one.register(first).status == UNAVAILABLE
        assert sorted(one.found(first).peers) == sorted([two.id, three.id])


def test_libp2p_70_the_defaults_are_32_and_dusk_has_more(peer, live):
    one, ns = peer(), fresh()
    for i in range(32):
        one.registered('%s-%d' % (ns, i))
    assert one.register(ns).status == (OK if live.dusk else UNAVAILABLE)


def test_dusk_34_a_reply_stays_decodable_by_count(start):
    """More than 1000 in what is asked for: pages of 1000, nothing twice, nothing left out."""
    relay = start(preset='dusk')
    peers, spaces = [Peer(relay) for _ in range(3)], ['ns-%d' % i for i in range(400)]
    for one in peers:
        envelope = one.record()
        for at in range(0, len(spaces), 50):
            streams = [begin(one.session, register(ns, envelope)) for ns in spaces[at:at + 50]]
            assert all(Reply(finish(stream)).status == OK for stream in streams)
    whole = peers[0].found()
    assert len(whole.rows) == 1000
    rest = peers[0].found(cookie=whole.cookie)
    assert len(rest.rows) == 200
    assert peers[0].found(cookie=rest.cookie).rows == []
    got = {(row.peer, row.ns.decode()) for row in whole.rows + rest.rows}
    assert got == {(one.id, ns) for one in peers for ns in spaces}
    for one in peers:
        one.close()


@pytest.mark.parametrize('preset', ['default', 'dusk'])
def test_dusk_34_a_reply_stays_decodable_by_size(start, preset):
    """Envelopes of 8 KiB: 1 MiB is full long before 1000 of them."""
    relay = start(preset=preset_of(preset))
    ns, kept = fresh(), set()

    def join(session):
        envelope = record(session.key, addrs=BIG)
        assert 7800 < len(envelope) <= 8192
        assert ask(session, register(ns, envelope)).status == OK
        kept.add(envelope)
        session.close()
    for key in [Key() for _ in range(150)]:
        join(relay.connect(key))
    with Peer(relay) as asker:
        whole = asker.found(ns)  # Reply refuses one of 1 MiB
        assert len(whole.raw) > MIB - 16384 and len(whole.rows) > 120
        rest = asker.found(ns, cookie=whole.cookie)
        assert set(whole.records) | set(rest.records) == kept
        assert len(whole.rows) + len(rest.rows) == 150
        longer = asker.record(addrs=BIG + BIG[:4])
        assert len(longer) > 8192
        assert asker.register(ns, envelope=longer).status == rdv.BAD_RECORD


@pytest.mark.long
def test_dusk_34_twenty_thousand_in_one_namespace(start):
    relay = start(preset='dusk')
    ns, key = fresh(), Key()

    def join(session):
        assert ask(session, register(ns, record(session.key))).status == OK
        session.close()
    for _ in range(20):
        crowd(relay, 1000, join)
    with Peer(relay, key) as asker:
        seen, cookie = set(), None
        while True:
            page = asker.found(ns, cookie=cookie)
            cookie = page.cookie
            if not page.rows:
                break
            assert not seen & set(page.records)
            seen |= set(page.records)
        assert len(seen) == 20000


# ---- streams and pieces --------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_two_streams_at_once(peer):
    one, ns = peer(), fresh()
    message = register(ns, one.record())
    first, second = begin(one.session, message[:9], fin=False), begin(one.session, b'', fin=False)
    second.send(discover(ns))
    assert Reply(finish(second)).rows == []
    first.send(message[9:])
    assert Reply(finish(first)).status == OK
    assert len(one.found(ns).rows) == 1


@pytest.mark.sanitize
@pytest.mark.tsan
def test_a_hundred_exchanges_at_once(peer):
    """dusk.md §5: 100 concurrent per connection."""
    one, ns = peer(), fresh()
    one.registered(ns)
    message = discover(ns)
    streams = [begin(one.session, message[:i % len(message)], fin=False) for i in range(100)]
    for i in reversed(range(100)):
        streams[i].send(message[i % len(message):])
    for stream in streams:
        assert len(Reply(finish(stream)).rows) == 1


@pytest.mark.sanitize
def test_every_split_in_two_and_byte_by_byte(peer):
    one, ns = peer(), fresh()
    message = discover(ns, 7)
    for at in range(1, len(message)):
        stream = begin(one.session, message[:at], fin=False)
        assert one.session.ping(at) is not None  # so that the halves come alone
        stream.send(message[at:])
        assert Reply(finish(stream)).status == OK
    message = register(ns, one.record())
    stream = begin(one.session, b'', fin=False)
    for at in range(len(message)):
        stream.send(message[at:at + 1])
    assert Reply(finish(stream)).status == OK


@pytest.mark.sanitize
def test_an_answer_waits_for_no_fin_and_what_is_behind_is_nothing(peer):
    one, ns = peer(), fresh()
    assert one.ask(register(ns, one.record()), fin=False).status == OK
    stream = begin(one.session, discover(ns) + discover(ns) + b'\xff' * 100)
    assert len(Reply(finish(stream)).rows) == 1


@pytest.mark.sanitize
def test_tolerates_what_protobuf_tolerates(peer):
    """Unknown fields, any order, the last of two (libp2p.md §1.1)."""
    one, ns = peer(), fresh()
    one.registered(ns)
    inner = pb((9, b'what'), (1, b'not this'), (7, 1 << 60), (1, ns.encode()))
    assert len(one.ask(lp(pb((31, b'x'), (5, inner), (30, 5), (1, rdv.DISCOVER)))).rows) == 1


@pytest.mark.sanitize
def test_what_is_no_request_ends_the_stream_and_nothing_else(peer):
    one, ns = peer(), fresh()
    one.registered(ns)
    bodies = [b'', b'\x08', pb((1, 0)), pb((1, 3)), pb((1, 1), (3, pb((1, 0)))),
              pb((1, 4), (6, pb((3, 0)))), pb((1, 5), (5, b'')), pb((5, pb((1, b'x')))),
              pb((1, 3), (5, b'\x0a\x05x')), b'\x0b\x0c', b'\xff' * 50, pb((1, 3), (5, 7)), bytes(99)]
    for body in bodies:
        assert finish(begin(one.session, lp(body))) == b'', body
    message = discover(ns)
    for size in range(len(message)):
        assert finish(begin(one.session, message[:size])) == b'', size
    assert one.alive() and len(one.found(ns).rows) == 1


@pytest.mark.sanitize
def test_a_request_has_a_longest_length(peer):
    one, ns = peer(), fresh()
    one.registered(ns)
    for more in (0, 1):
        body = pb((1, 3), (5, pb((1, ns.encode()))))
        filler = REQUEST_MAX + more - len(body) - 4
        body += pb((15, b'z' * filler))
        assert len(body) == REQUEST_MAX + more
        if more:
            try:
                assert not finish(begin(one.session, lp(body)))
            except Reset:
                pass
        else:
            assert len(one.ask(lp(body)).rows) == 1
    # by its prefix alone, before anything is gathered (libp2p.md §1.1)
    for prefix in (uv(REQUEST_MAX + 1), uv(MIB), uv(2**32), uv(2**62), b'\xff' * 10, b'\x80\x00'):
        stream = begin(one.session, prefix, fin=False)
        try:
            assert not finish(stream, 5), prefix
        except TimeoutError:
            raise AssertionError('%r is waited for' % prefix) from None
    assert one.alive() and len(one.found(ns).rows) == 1


# ---- floods --------------------------------------------------------------------------------------

def in_time(peer, ns, seconds=5):
    """Somebody else is served meanwhile."""
    started = time.monotonic()
    peer.found(ns)
    assert time.monotonic() - started < seconds * SLOW


@pytest.mark.sanitize
def test_half_requests_are_bounded_and_end(start):
    """Streams with most of a long request: a connection has RPC_CONN_BYTES_MAX (2 MiB) for them,
    and in the end they are gone."""
    relay, ns, waiting = start(), fresh(), []
    half = uv(REQUEST_MAX) + b'\x7a' * (REQUEST_MAX - 100)
    before, other = relay.rss_kib(), Peer(relay)
    other.registered(ns)
    foes = [Peer(relay) for _ in range(8)]
    for one in foes:
        waiting += [begin(one.session, half, fin=False) for _ in range(160)]
    in_time(other, ns)
    if SLOW == 1:  # with the receive buffers, of which this is the first use
        assert relay.rss_kib() - before < (8 * 2 + 16 + 8) * 1024, 'all of it would be 80 MiB'
    assert all(one.alive() for one in foes)  # and so all of it has been read
    assert sum(stream.rst for stream in waiting) >= 8 * (160 - 32), 'too much is reset at once'
    for stream in waiting:
        assert not finish(stream, 30)
    in_time(other, ns)
    for one in foes + [other]:
        one.close()


@pytest.mark.sanitize
def test_replies_that_nobody_reads_are_bounded(start):
    """Peers ask for 0.8 MiB sixty times each and grant no credit: a connection has RPC_ANSWERS_MAX
    (2 MiB) of them, the rest waits; whoever reads is served as ever, and reads all sixty."""
    relay = start()
    ns, small = fresh(), fresh()
    for _ in range(100):
        with Peer(relay) as one:
            one.registered(ns, envelope=one.record(addrs=BIG))
    other = Peer(relay)
    other.registered(small)
    before, sessions = relay.rss_kib(), []
    for _ in range(4):
        sessions.append(relay.connect(auto_window=False))
        for _ in range(60):
            begin(sessions[-1], discover(ns))
    for _ in range(5):
        in_time(other, small)
        in_time(other, ns)
        time.sleep(0.1)
    if SLOW == 1:  # and what the registrations' first reading maps of the store
        assert relay.rss_kib() - before < 48 * 1024, '240 replies of 0.8 MiB would be 190 MiB'
    streams = [begin(other.session, discover(ns)) for _ in range(60)]
    assert all(len(Reply(finish(stream)).rows) == 100 for stream in streams)
    assert all(session.alive() for session in sessions)
    for session in sessions:
        session.close()
    in_time(other, ns)
    other.close()


@pytest.mark.sanitize
def test_when_memory_for_answers_is_short_pages_are_cut(start):
    """A hundred who do not read: what is left is shared, and a page of some records always is."""
    relay = start()
    ns = fresh()
    for _ in range(100):
        with Peer(relay) as one:
            one.registered(ns, envelope=one.record(addrs=BIG))
    foes = [relay.connect(auto_window=False) for _ in range(100)]
    for _ in range(4):
        for foe in foes:
            begin(foe, discover(ns))
    with Peer(relay) as other:
        first = other.found(ns)
        assert 1 <= len(first.rows) < 100, 'all of the pool was not in use'
        rows, cookie = list(first.rows), first.cookie
        while len(rows) < 100:
            page = other.found(ns, cookie=cookie)
            assert page.rows
            rows, cookie = rows + page.rows, page.cookie
        assert len(set(rows)) == 100
        other.registered(fresh())
    for foe in foes:
        foe.close()
    with Peer(relay) as other:
        assert len(other.found(ns).rows) == 100


@pytest.mark.sanitize
def test_a_flood_of_requests_leaves_others_served(peer, live):
    """As fast as one connection can, without reading: it is slowed or ended, others are not."""
    other, foe, ns = peer(), peer(), fresh()
    other.registered(ns)
    sent, until = 0, time.monotonic() + 2 * SLOW
    slowest = 0
    while time.monotonic() < until:
        for _ in range(50):
            try:
                foe.session.stream().send(mss(MSS, rdv.RENDEZVOUS) + discover(ns))
                sent += 1
            except (Closed, Reset):
                foe = peer()
        started = time.monotonic()
        other.found(ns)
        slowest = max(slowest, time.monotonic() - started)
    assert sent > 200 and slowest < 5 * SLOW, (sent, slowest)


# ---- the load generator --------------------------------------------------------------------------

def load(relay, *args):
    """(exit status, what it says) of load-rdv."""
    command = [BUILD / 'tools' / 'load-rdv', '%s:%d' % relay.at, '--server-pid', relay.proc.pid,
               '--duration', '0.3', *args]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=60 * SLOW)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_load_rdv_counts_what_was_acknowledged(start):
    relay = start('--max-registrations', 0, '--max-registrations-per-peer', 0,
                  '--max-conns-per-peer', 0)
    status, told = load(relay, '--fill', '500', '--depth', '2')
    assert status == 0 and told['ok'] and told['fill']['n'] == 500
    counted = relay.metrics()
    assert told['present'] == counted['sluice_rendezvous_total{event="registered"}']
    finds = [told['discover one'], told['discover many']]
    assert sum(t['n'] for t in finds) == counted['sluice_rendezvous_total{event="discovered"}']
    assert sum(t['n'] for t in finds) * 100 == counted['sluice_rendezvous_records_total']
    for phase in ('register', 'discover one', 'discover many'):
        assert told[phase]['n'] > 0 and told[phase]['server_cpu_us'] > 0
        assert 0 < told[phase]['latency_us']['p50'] <= told[phase]['latency_us']['max']


def test_load_rdv_says_when_it_was_refused(start):
    relay = start('--max-registrations', 300)
    status, told = load(relay, '--fill', '500')
    assert status == 1 and not told['ok'] and told['fill']['refused'] == 300
