"""Rendezvous: checks 27 to 34 of dusk.md §13 and 70 of libp2p.md §19, and what the two pages say
beside them, under both presets. Bounds and floods are in test_rdv_bounds.py."""

import itertools
import pathlib
import random
import shutil
import subprocess

import pytest

import rdv
from rdv import (BAD_COOKIE, BAD_NS, BAD_RECORD, BAD_TTL, NOT_YOURS, OK, Peer, Reply, begin,
                 discover, finish, fresh, record, register, unregister)
from relay import SLOW, SLUICECTL, Relay, makes
from turnd import Clock
from wire import Key, lp, pb

GOLDEN = {}
for line in (pathlib.Path(__file__).resolve().parents[1] / 'vectors/rdv/messages.txt').open():
    GOLDEN[line.split()[0]] = bytes.fromhex(line.split()[1])


def preset_of(name):
    return None if name == 'default' else name


@pytest.fixture(scope='module', params=['default', 'dusk'])
def live(request, tmp_path_factory):
    relay = Relay(tmp_path_factory.mktemp('rdv'), preset=preset_of(request.param)).start()
    relay.dusk = request.param == 'dusk'
    yield relay
    relay.check()
    assert relay.stop() == 0


@pytest.fixture(params=['default', 'dusk'])
def own(request, start):
    """A relay that the test may stop and start."""
    relay = start(preset=preset_of(request.param))
    relay.dusk = request.param == 'dusk'
    return relay


@pytest.fixture
def peer(live):
    yield from makes(Peer, live)


# ---- messages ------------------------------------------------------------------------------------

def test_this_client_writes_and_reads_the_published_messages():
    envelope = bytes.fromhex('deadbeef')
    assert register('dusk/peers', envelope) == GOLDEN['dusk-register']
    assert unregister('dusk/peers') == GOLDEN['dusk-unregister']
    assert discover('dusk/peers') == GOLDEN['dusk-discover']
    assert discover('test', 10) == GOLDEN['libp2p-discover-limit']
    assert unregister('test') == GOLDEN['libp2p-unregister']
    for name in GOLDEN:
        if GOLDEN[name][2] in (1, 4):
            Reply(GOLDEN[name])
    found = Reply(GOLDEN['dusk-discover-one'])
    assert found.rows == [(b'dusk/peers', envelope, 7200)]
    assert found.cookie == bytes(range(1, 9)) + b'dusk/peers'


@pytest.mark.sanitize
def test_dusk_33_libp2p_70_replies_are_the_published_bytes(peer, live):
    """Each with its explicit zeroes; statuses have a text where libp2p.md shows one."""
    one, ns = peer(), fresh()
    head = 'dusk' if live.dusk else 'libp2p'
    assert one.register(ns).raw == GOLDEN[head + '-register-ok']
    assert b'\x08\x00\x18\xa0\x38' in one.register(ns).raw
    assert one.register(ns, 7199).raw == GOLDEN[head + '-register-bad-ttl']
    foreign = one.register(ns, envelope=record(Key()))
    if live.dusk:
        assert foreign.raw == GOLDEN['dusk-register-foreign']
    empty = one.found(fresh())
    assert empty.raw.endswith(b'\x18\x00')
    full = one.found(ns)
    assert full.raw.endswith(b'\x18\x00') and full.cookie[8:] == ns.encode()
    bad = one.discover(fresh(), cookie=full.cookie)
    assert bad.status == BAD_COOKIE
    if live.dusk:
        assert bad.raw == GOLDEN['dusk-discover-bad-cookie']


# ---- register ------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_27_libp2p_70_ttl_bounds(peer, live):
    one, ns = peer(), fresh()
    assert one.register(ns).ttl == 7200
    for ttl in (7200, 7201, 259200):
        assert one.register(ns, ttl).ttl == ttl
    for ttl in (1, 7199, 259201, 2**32 + 7200, 2**63):
        assert one.register(ns, ttl).status == BAD_TTL
    zero = one.register(ns, 0)
    assert zero.status == BAD_TTL if live.dusk else zero.ttl == 7200
    assert [row.ttl for row in one.found(ns).rows] == [259200 if live.dusk else 7200]


@pytest.mark.sanitize
@pytest.mark.parametrize('domain', ['standard', 'legacy'])
@pytest.mark.parametrize('kind', ['ed25519', 'secp256k1', 'ecdsa', 'rsa'])
def test_libp2p_70_records_of_both_domains_and_every_kind_of_key(peer, live, domain, kind):
    """For Dusk only what its clients read: one record that they do not would cost them the whole
    reply (see test_dusk_interop.py)."""
    one, ns = peer(Key(kind)), fresh()
    envelope = one.record(domain=domain)
    if live.dusk and (domain, kind) != ('legacy', 'ed25519'):
        assert one.register(ns, envelope=envelope).status == BAD_RECORD
        assert one.found(ns).records == []
        return
    one.registered(ns, envelope=envelope)
    assert one.found(ns).records == [envelope]


@pytest.mark.sanitize
def test_dusk_28_libp2p_70_a_record_of_another_is_refused(peer, live):
    one, other, ns = peer(), peer(), fresh()
    for domain in ('legacy',) if live.dusk else rdv.DOMAINS:
        assert one.register(ns, envelope=record(other.key, domain=domain)).status == NOT_YOURS
    # signed by oneself about another: the record itself is broken (libp2p.md §1.4)
    about = record(one.key, peer=other.id)
    assert one.register(ns, envelope=about).status == BAD_RECORD
    assert one.found(ns).rows == []


@pytest.mark.sanitize
def test_dusk_28_a_broken_record_is_refused_and_not_found(peer):
    one, ns = peer(), fresh()
    for domain in rdv.DOMAINS:
        good = one.record(domain=domain)
        for bit in list(range(0, 8 * len(good), 97)) + [8 * len(good) - 1]:
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            assert one.register(ns, envelope=bytes(bad)).status == BAD_RECORD, bit
        for size in range(0, len(good), 29):
            assert one.register(ns, envelope=good[:size]).status == BAD_RECORD, size
    wrong = dict(rdv.DOMAINS)
    rdv.DOMAINS['mixed'] = wrong['legacy'][0], wrong['standard'][1]
    try:
        assert one.register(ns, envelope=one.record(domain='mixed')).status == BAD_RECORD
    finally:
        del rdv.DOMAINS['mixed']
    no_record = lp(pb((1, rdv.REGISTER), (2, pb((1, ns.encode())))))
    assert one.ask(no_record).status == BAD_RECORD
    assert one.found(ns).rows == []


def test_addresses_that_do_not_parse(peer, live):
    """dusk.md §5 wants each to parse; libp2p.md §1.3 lets an unknown code fail that one only."""
    one, ns = peer(), fresh()
    for bad in (bytes.fromhex('04cb007107062328ef7f'), bytes.fromhex('04cb0071')):
        envelope = one.record(addrs=('/ip4/127.0.0.1/tcp/1', bad))
        assert one.register(ns, envelope=envelope).status == (BAD_RECORD if live.dusk else OK)
    one.registered(ns, envelope=one.record(addrs=()))


@pytest.mark.sanitize
def test_dusk_29_namespace_bounds(peer, live):
    one = peer()
    longest = (fresh() + 'n' * 255)[:255]
    one.registered(longest)
    assert len(one.found(longest).rows) == 1
    for bad in (longest + 'n', 'n' * 60000, b'\xff', b'a\xc3'):
        assert one.register(bad).status == BAD_NS
        assert one.discover(bad).status == BAD_NS
    missing = lp(pb((1, rdv.REGISTER), (2, pb((2, one.record())))))
    assert one.ask(missing).status == BAD_NS
    if live.dusk:  # present and empty is a namespace, and not the one of all
        one.registered('')
        assert one.id in one.found('').peers
        assert {row.ns for row in one.found('').rows} == {b''}
    else:
        assert one.register('').status == BAD_NS
        assert one.discover('').status == BAD_NS


def test_a_peers_own_namespace_is_its_own(peer, live):
    """dusk.md §14: who is looked for in dusk/peer/ID is ID."""
    one, other = peer(), peer()
    one.registered('dusk/peer/' + one.key.text)
    stolen = other.register('dusk/peer/' + one.key.text)
    assert stolen.status == (NOT_YOURS if live.dusk else OK)


@pytest.mark.sanitize
def test_libp2p_70_registering_again_replaces(peer, live):
    one, ns = peer(), fresh()
    one.registered(ns, 7200, one.record(seq=10))
    newer = one.registered(ns, 9000, one.record(seq=11))
    rows = one.found(ns).rows
    assert [row.record for row in rows] == [newer]
    assert rows[0].ttl == 9000 if live.dusk else 8990 <= rows[0].ttl <= 9000
    older = one.record(seq=9)
    reply = one.register(ns, envelope=older)
    if live.dusk:  # seq is not compared (dusk.md §5)
        assert reply.status == OK and one.found(ns).records == [older]
    else:
        assert reply.status == BAD_RECORD and one.found(ns).records == [newer]
        again = one.record(seq=11, addrs=('/ip4/127.0.0.1/tcp/2',))
        assert one.register(ns, envelope=again).status == OK
    # of another namespace it is no predecessor
    assert one.register(fresh(), envelope=older).status == OK


# ---- discover ------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_30_the_very_bytes_the_asker_too_and_limits(peer, live):
    ns, peers = fresh(), [peer() for _ in range(5)]
    domains = ('legacy',) if live.dusk else rdv.DOMAINS
    kept = {one.id: one.registered(ns, envelope=one.record(domain=domain))
            for one, domain in zip(peers, itertools.cycle(domains))}
    for one in peers:
        found = one.found(ns)
        assert dict(zip(found.peers, found.records)) == kept
        assert all(row.ns == ns.encode() for row in found.rows)
    asker = peers[0]
    for limit in (0, 1, 4, 5, 6, 1000, 1001, 2**32, 2**63):
        assert len(asker.found(ns, limit).rows) == min(limit, 5), limit
    for bit in range(64):  # beside it other namespaces, which do not matter
        assert asker.found(ns + chr(33 + bit)).rows == []


def test_dusk_30_without_a_namespace_all_or_none(peer, live):
    one, spaces = peer(), {fresh() for _ in range(4)}
    for ns in spaces:
        one.registered(ns)
    reply = one.discover()
    if not live.dusk:
        assert reply.status == BAD_NS
        return
    rows, _ = one.walk(None, 100)
    assert {row.ns.decode() for row in rows if row.peer == one.id} == spaces
    assert len(reply.cookie) == 8 and reply.rows
    assert one.discover(fresh(), cookie=reply.cookie).status == BAD_COOKIE
    named = one.found(next(iter(spaces))).cookie
    assert one.discover(cookie=named).status == BAD_COOKIE


@pytest.mark.sanitize
def test_dusk_31_libp2p_70_cookie_round(peer, live):
    one, two, ns, other = peer(), peer(), fresh(), fresh()
    one.registered(ns)
    one.registered(other)
    first = one.found(ns)
    assert first.peers == [one.id] and first.cookie[8:] == ns.encode()
    second = one.found(ns, cookie=first.cookie)
    assert second.rows == []
    two.registered(ns)
    assert one.found(ns, cookie=second.cookie).peers == [two.id]
    assert one.found(ns, cookie=first.cookie).peers == [two.id], 'an old cookie goes on'
    assert one.discover(other, cookie=first.cookie).status == BAD_COOKIE
    assert one.discover(ns, cookie=first.cookie[:8]).status == BAD_COOKIE
    unknown = one.discover(ns, cookie=b'\x55' * 8 + ns.encode())
    if live.dusk:
        assert len(unknown.rows) == 2
    else:
        assert unknown.status == BAD_COOKIE
    for size in range(1, 8):
        short = one.discover(ns, cookie=first.cookie[:size])
        assert short is None if live.dusk else short.status == BAD_COOKIE
    assert one.alive()


@pytest.mark.sanitize
def test_libp2p_70_cookie_pages_never_repeat(peer):
    """Two chains of pages beside each other while peers come, go and change: no chain gives a
    registration twice, and together its pages are what was there all the time."""
    ns, peers, pick = fresh(), [peer() for _ in range(8)], random.Random(5)
    chains = [{'cookie': None, 'seen': []} for _ in range(2)]
    now = {}

    def step(one):
        act = pick.randrange(4)
        if act == 0:
            one.unregister(ns)
            now.pop(one.id, None)
        elif act == 1 and one.id in now:
            one.registered(ns, envelope=now[one.id])  # the same again is nothing new
        else:
            now[one.id] = one.registered(ns)
        chain = pick.choice(chains)
        reply = one.found(ns, pick.randrange(4), chain['cookie'])
        chain['cookie'] = reply.cookie
        chain['seen'] += reply.records

    for _ in range(150):
        step(pick.choice(peers))
    for chain in chains:
        rows, _ = peers[0].walk(ns, 3, chain['cookie'])
        seen = chain['seen'] + [row.record for row in rows]
        assert len(seen) == len(set(seen)), 'repeated'
        assert set(now.values()) <= set(seen)
    assert sorted(peers[0].found(ns).records) == sorted(now.values())


# ---- unregister, expiry, restart -----------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_32_unregister_has_no_answer_and_disconnect_is_none(peer, live):
    one, two, ns = peer(), peer(), fresh()
    one.registered(ns)
    two.registered(ns)
    two.unregister(ns)
    two.unregister(ns)  # of what is not there
    two.unregister(ns, peer=one.id)  # `id` is ignored: nobody unregisters another
    two.unregister(fresh())
    two.unregister('n' * 256)
    assert one.found(ns).peers == [one.id]
    two.registered(ns)
    two.close()
    two = peer(two.key)
    assert sorted(one.found(ns).peers) == sorted([one.id, two.id])
    one.unregister(ns)
    assert two.found(ns).peers == [two.id]


@pytest.mark.parametrize('preset', ['default', 'dusk'])
def test_dusk_32_expiry_unregisters(start, tmp_path, preset):
    clock, ns = Clock(tmp_path), fresh()
    relay = start(preset=preset_of(preset), env=clock.env)
    with Peer(relay) as one, Peer(relay) as two:
        short, long = one.registered(ns, 7200), two.registered(ns, 10000)
    clock.step(7100)
    with Peer(relay) as asker:
        found = asker.found(ns)
        assert found.records == [short, long], 'and nobody was connected'
        left = [row.ttl for row in found.rows]
        if preset == 'dusk':
            assert left == [7200, 10000], 'granted, not remaining (dusk.md §5)'
        else:
            assert 40 < left[0] <= 100 and 2840 < left[1] <= 2900
    clock.step(101)
    with Peer(relay) as asker:
        assert asker.found(ns).records == [long]
        assert asker.found(ns, cookie=found.cookie).rows == []
    relay.kill()  # an expiry is a time of the world, not of the process
    relay.start()
    clock.step(2800)
    with Peer(relay) as asker:
        assert asker.found(ns).rows == []
        asker.registered(ns)
        assert asker.found(ns, cookie=found.cookie).peers == [asker.id]


@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_libp2p_70_survives_restart(own, end):
    """Every acknowledged registration, byte for byte, in its order; and cookies go on."""
    ns, key, gone = fresh(), Key(), fresh()
    with Peer(own, key) as one, Peer(own) as two:
        other = two.record(domain='legacy' if own.dusk else 'standard')
        kept = [one.registered(ns), two.registered(ns, envelope=other)]
        half = one.found(ns, 1)
        one.registered(gone)
        one.unregister(gone)
        getattr(own, end)()
    own.start()
    with Peer(own, key) as one, Peer(own) as three:
        assert one.found(ns).records == kept
        assert one.found(gone).rows == []
        assert one.found(ns, cookie=half.cookie).records == kept[1:]
        end_of = one.found(ns).cookie
        late = three.registered(ns)
        assert one.found(ns, cookie=end_of).records == [late], 'numbers go on, too'
        if not own.dusk:
            old = one.register(ns, envelope=one.record(seq=1))
            assert old.status == BAD_RECORD, 'and so do sequence numbers of records'


def test_libp2p_70_a_cookie_of_what_a_backup_has_undone(own, tmp_path):
    """It is an unknown one: else what comes after the backup would be hidden from its owner."""
    ns, backup = fresh(), tmp_path / 'backup.mdb'
    with Peer(own) as one, Peer(own) as two:
        one.registered(ns)
        subprocess.run([SLUICECTL, '--data', own.data, 'store', 'backup', backup], check=True,
                       env=own.env, stdout=subprocess.DEVNULL)
        for _ in range(5):
            two.registered(fresh())
        two.registered(ns)
        cookie = one.found(ns).cookie
        assert own.stop() == 0
    shutil.copy(backup, pathlib.Path(own.data) / 'store.mdb')
    own.start()
    with Peer(own) as one:
        late = one.registered(ns)
        if own.dusk:
            assert one.found(ns, cookie=cookie).records[-1] == late
        else:
            assert one.discover(ns, cookie=cookie).status == BAD_COOKIE


def test_libp2p_70_acknowledged_under_kill_is_kept(own):
    """kill -9 at the very moment of an acknowledgement, with as much as may be still to be written:
    none that was acknowledged is lost, none is half there."""
    for turn in range(8):
        key, ns, kept, streams = Key(), fresh(), {}, []
        with Peer(own, key) as one:
            streams = [begin(one.session, fin=False) for _ in range(32)]
            for stream in streams[turn::4]:  # by the reactor, as soon as the bytes are there
                stream.hook = lambda _: own.proc.kill()
            envelopes = [one.record(seq=i + 1, addrs=['/ip4/127.0.0.1/tcp/%d' % n
                                                      for n in range(1, 400)]) for i in range(32)]
            for i, stream in enumerate(streams):
                try:
                    stream.send(register('%s-%d' % (ns, i), envelopes[i]))
                except rdv.Closed:
                    break
            own.proc.wait(20 * SLOW)
            for i, stream in enumerate(streams):
                one.session.wait(lambda: one.session.dead)
                with one.session.cond:
                    raw = stream.take_message()
                if raw:
                    assert Reply(lp(raw)).status == OK
                    kept[i] = envelopes[i]
        assert kept
        own.start()
        with Peer(own, key) as one:
            for i, envelope in enumerate(envelopes):
                found = one.found('%s-%d' % (ns, i)).records
                assert found == [envelope] if i in kept else found in ([], [envelope])
