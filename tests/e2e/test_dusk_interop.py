"""An unmodified rust-libp2p 0.54.1 that does what the Dusk client does (dusk.md §1.1), through one
process with both its doors: what dusk.md's check 65 asks for, and issue 6's two clients that find
each other by name."""

import contextlib
import hashlib
import re
import subprocess
import time

import pytest

from clients import Refused, move
from dusk_clients import (DIRECTORY, REFERENCE, SYNC, Dusk, DuskRelay, Gossiper,
                          ours_only)
from rdv import BAD_RECORD, Peer, fresh
from relay import SLOW, Relay
from turn import Client as TurnClient, TcpPath, UdpPath, UdpPeer
from turn_field import unpacked
from turnd import own_ip
from wire import Key, base58, maddr

pytestmark = pytest.mark.interop


@pytest.fixture(scope='module')
def dusk(tmp_path_factory):
    live = DuskRelay(tmp_path_factory.mktemp('dusk')).start()
    yield live
    live.finish()


@pytest.fixture
def relay(dusk):
    yield dusk
    dusk.check()


@pytest.fixture
def start(tmp_path):
    started = []

    def make(*flags, **options):
        live = DuskRelay(tmp_path / ('d%d' % len(started)), *flags, **options)
        started.append(live)
        return live.start()
    yield make
    for live in started:
        live.finish()


@pytest.fixture
def clients():
    """Makes clients that are gone after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Dusk(*args, **options))


def heard_once(client, published, size, timeout=15):
    """It came, and, after a moment in which a second one could have, only once."""
    event = client.expect('gossip', id=published['id'], since=0, timeout=timeout, errors=False)
    assert event['bytes'] == size and event['topic'] == published['topic'], event
    time.sleep(0.2)
    assert len(client.seen('gossip', 0, id=published['id'])) == 1
    return event


# ---- one client ---------------------------------------------------------------------------------

def test_dusk_65_reserves_and_is_told_what_it_needs(relay, clients):
    alone = clients()
    event = alone.day(relay)
    assert event['relay'] == relay.peer
    assert event['addrs']
    for address in event['addrs']:
        assert address.endswith('/p2p/%s/p2p-circuit/p2p/%s' % (relay.peer, alone.peer))
    told = alone.expect('identified', since=0, peer=relay.peer)
    assert told['version'] == '/dusk/relay/1.0.0' and told['key'] == relay.peer
    assert '/p2p' not in ''.join(told['addrs'])
    wanted = {'/libp2p/circuit/relay/0.2.0/hop', '/rendezvous/1.0.0', '/meshsub/1.1.0',
              '/meshsub/1.0.0', '/ipfs/id/1.0.0', '/ipfs/id/push/1.0.0', '/ipfs/ping/1.0.0',
              '/dusk/gif/1.0.0', '/dusk/directory/1.0.0', '/dusk/turn-credentials/1.0.0'}
    assert wanted <= set(told['protocols']), wanted - set(told['protocols'])
    assert not {'/ipfs/kad/1.0.0', '/libp2p/circuit/relay/0.2.0/stop'} & set(told['protocols'])
    alone.expect('pinged', since=0, peer=relay.peer)
    assert not alone.seen('no-gossip', 0) and not alone.seen('disconnected', 0)


def test_dusk_27_30_registers_and_discovers_itself(relay, clients):
    alone = clients()
    alone.day(relay)
    assert alone.registered('dusk/community/one')['ttl'] == 7200
    row = alone.discovered('dusk/community/one')[alone.peer]
    assert row['namespace'] == 'dusk/community/one' and row['ttl'] == 7200
    assert row['addrs'] == ['%s/p2p-circuit/p2p/%s' % (relay.address, alone.peer)]
    assert alone.discovered('dusk/community/nobody') == {}


def test_dusk_27_ttl_bounds(relay, clients):
    alone = clients()
    alone.day(relay)
    assert alone.registered('dusk/community/ttl', 259200)['ttl'] == 259200
    for ttl in (7199, 259201):
        alone.ask('register', 'dusk/community/ttl', ttl)
        failed = alone.expect('register-failed', namespace='dusk/community/ttl')
        assert failed['what'] == 'InvalidTtl', failed


def test_dusk_30_discovers_every_namespace_at_once(relay, clients):
    alone = clients()
    alone.day(relay)
    alone.registered('dusk/peer/%s' % alone.peer)
    alone.ask('discover')
    rows = alone.expect('discovered', namespace='*')['registrations']
    assert ('dusk/peer/%s' % alone.peer, alone.peer) in {(r['namespace'], r['peer']) for r in rows}


def test_dusk_32_unregisters(relay, clients):
    alone = clients()
    alone.day(relay)
    alone.registered('dusk/community/gone')
    assert alone.peer in alone.discovered('dusk/community/gone')
    alone.ask('unregister', 'dusk/community/gone')
    alone.expect('unregistered')
    end = time.monotonic() + 10 * SLOW
    while alone.peer in alone.discovered('dusk/community/gone'):
        assert time.monotonic() < end


def test_dusk_36_38_39_40_the_directory(relay, clients):
    ann, bob = clients(), clients()
    ann.day(relay)
    bob.day(relay)
    ann.ask('dir-register', '  Ann of interop  ')
    assert ann.expect('dir-register')['ok']
    bob.ask('dir-register', 'Bob of interop')
    assert bob.expect('dir-register')['ok']
    row = bob.found('aNN OF int')[ann.peer]
    assert row['display_name'] == 'Ann of interop'
    assert row['relay_addr'] == '%s/p2p-circuit/p2p/%s' % (relay.address, ann.peer)
    assert abs(row['last_seen'] - time.time()) < 60
    assert set(bob.found('of interop')) == {ann.peer, bob.peer}
    assert set(bob.found(ann.peer)) == {ann.peer}
    ann.ask('dir-register', 'x' * 65)
    answer = ann.expect('dir-register')
    assert not answer['ok'] and answer['what'] == 'display_name must be 1-64 characters'
    for _ in range(2):  # again is no error
        bob.ask('dir-remove')
        assert bob.expect('dir-remove')['ok']
    assert set(ann.found('of interop')) == {ann.peer}
    ann.ask('dir-remove')
    assert ann.expect('dir-remove')['ok']
    assert not bob.found('of interop')


def test_dusk_42_credentials(relay, clients):
    alone = clients()
    alone.day(relay)
    alone.ask('credentials')
    told = alone.expect('credentials')
    expiry, peer = told['username'].split(':')
    assert peer == alone.peer and told['ttl'] == 86400
    assert abs(int(expiry) - time.time() - 86400) < 60
    assert told['uris'] == ['turn:%s:3478' % relay.ip, 'turn:%s:3478?transport=tcp' % relay.ip]


def test_dusk_42_no_credentials_without_turn(start, clients):
    alone = clients()
    alone.day(start(turn=False))
    alone.ask('credentials')
    with pytest.raises(Refused) as refused:
        alone.expect('credentials')
    assert 'supports none of the requested protocols' in refused.value.args[0]['what']
    told = alone.expect('identified', since=0)
    assert '/dusk/turn-credentials/1.0.0' not in told['protocols']


@pytest.mark.parametrize('words', [('trending',), ('search', 'cat')])
def test_dusk_43_no_gifs_without_a_key(relay, clients, words):
    alone = clients()
    alone.day(relay)
    alone.ask('gif', *words)
    assert alone.expect('gif')['results'] == []


def test_dusk_every_refresh_asks_again(relay, clients):
    """dusk.md §1.1, 5: each namespace registered and each watched one discovered, once a refresh,
    and the directory told."""
    alone = clients(refresh_ms=700)
    alone.day(relay, namespaces=('dusk/peers', 'dusk/community/often'), watched=('dusk/peers',),
              name='often')
    for namespace in ('dusk/peers', 'dusk/community/often'):
        alone.expect('registered', since=0, count=3, namespace=namespace)
    alone.expect('discovered', since=0, count=3, namespace='dusk/peers')
    for event in alone.expect('dir-register', since=0, count=3):
        assert event['ok']
    alone.ask('dir-remove')


POISONS = {
    'of the standard domain': dict(domain='standard'),
    'with an http-path': dict(addrs=(maddr('/ip4/127.0.0.1/tcp/1') + bytes.fromhex('e1030178'),)),
    'with a long certhash': dict(
        addrs=(maddr('/ip4/127.0.0.1/tcp/1') + bytes.fromhex('d203521250') + bytes(80),)),
    'with half an address': dict(addrs=(bytes.fromhex('047f0000'),)),
    'with nothing for an address': dict(addrs=(b'',)),
    'signed by secp256k1': dict(kind='secp256k1'),
    'signed by ecdsa': dict(kind='ecdsa'),
    'signed by rsa': dict(kind='rsa'),
}


@ours_only
def test_dusk_nobody_empties_a_namespace_for_others(relay, clients):
    """rust-libp2p drops a whole reply with one record in it that it cannot read: so such a record is
    not accepted."""
    honest, asking = clients(), clients()
    honest.day(relay)
    asking.day(relay)
    for number, (what, how) in enumerate(POISONS.items()):
        ns, how = 'dusk/community/poisoned-%d' % number, dict(how)
        honest.registered(ns)
        with Peer(relay.live, Key(how.pop('kind', 'ed25519'))) as foe:
            assert foe.register(ns, envelope=foe.record(**how)).status == BAD_RECORD, what
        assert asking.discovered(ns).keys() == {honest.peer}, what


@ours_only
def test_dusk_no_relay_empties_a_namespace_either(start, tmp_path, clients):
    """What a relay of other rules took and tells is judged as if it had come here."""
    other = Relay(tmp_path / 'other', '--gossip', 'on', listen=own_ip() + ':0').start()
    relay = start('--peer-relay', other.address, turn=False)
    other.argv[other.argv.index('--listen-p2p') + 1] = '%s:%d' % other.at
    other.argv += ['--peer-relay', relay.address]
    assert other.stop() == 0
    other.start()
    asking, ns = clients(), fresh()
    asking.day(relay)
    try:
        with Peer(other) as foe, Peer(other) as honest:
            deadline = time.monotonic() + 30 * SLOW
            while base58(honest.id) not in asking.discovered(ns):
                assert time.monotonic() < deadline
                foe.registered(ns, envelope=foe.record(domain='standard'))
                honest.registered(ns)
                time.sleep(0.3)
            time.sleep(0.5)
            assert asking.discovered(ns).keys() == {base58(honest.id)}
    finally:
        assert other.stop() == 0


@ours_only
@pytest.mark.parametrize('how', [
    dict(addrs=()), dict(seq=0), dict(seq=(1 << 64) - 1), dict(addrs=('/ip4/127.0.0.1/tcp/1',) * 100),
    dict(addrs=(maddr('/ip4/127.0.0.1/tcp/443') + bytes.fromhex('de03'),    # wss
                bytes.fromhex('047f0000019102 0001cd03'),                       # udp, quic-v1
                bytes.fromhex('3801 78'))),                                     # dnsaddr
], ids=['none', 'seq0', 'seqmax', 'many', 'kinds'])
def test_dusk_what_is_accepted_is_read(relay, clients, how):
    asking, ns = clients(), fresh()
    asking.day(relay)
    with Peer(relay.live) as other:
        other.registered(ns, envelope=other.record(**how))
        assert asking.discovered(ns).keys() == {base58(other.id)}


# ---- two clients --------------------------------------------------------------------------------

def test_dusk_65_whoever_is_discovered_is_dialled_and_chats(relay, clients):
    """The one that looks opens the circuit by itself, and another at every refresh, however many
    there are (dusk.md §1.1, 6)."""
    ann, bob = clients(), clients(refresh_ms=700)
    ann.day(relay, namespaces=('dusk/community/chat',))
    ann.expect('registered', since=0)
    bob.day(relay, watched=('dusk/community/chat',))
    bob.expect('connected', since=0, peer=ann.peer)
    deadline = time.monotonic() + 30 * SLOW
    while len(bob.circuits(ann.peer)) < 3:
        assert time.monotonic() < deadline, bob.events[-20:]
        time.sleep(0.05)
    assert ann.circuits(bob.peer)
    move(bob, ann, relay, 16 << 10 if REFERENCE else 4 << 20)  # it ends circuits after 128 KiB
    assert not ann.seen('disconnected', 0, peer=relay.peer)
    assert not bob.seen('disconnected', 0, peer=relay.peer)


@ours_only
def test_dusk_whoever_dials_for_ever_keeps_nobody_out(start, clients):
    """Two that dial each other at every refresh and close nothing use up what a peer may have, in an
    hour as the original does it. Circuits of theirs make room, the quiet ones first: a transfer
    goes on, and a third comes through to either."""
    relay = start('--max-circuits-per-peer', 6, turn=False)
    ann, bob, cleo = clients(refresh_ms=150), clients(refresh_ms=150), clients()
    for client in (ann, bob):
        client.day(relay, namespaces=('dusk/peers',), watched=('dusk/peers',))
    deadline = time.monotonic() + 60 * SLOW
    while min(len(ann.circuits(bob.peer)), len(bob.circuits(ann.peer))) < 20:
        assert time.monotonic() < deadline, (ann.events[-3:], bob.events[-3:])
        time.sleep(0.05)
    move(ann, bob, relay, 256 << 20)  # on one of those circuits, while new ones come
    cleo.day(relay)
    move(cleo, ann, relay, 8 << 20)
    move(cleo, bob, relay, 8 << 20)
    assert not ann.seen('dial-failed', 0), 'nobody was refused'
    for client in (ann, bob):
        relay.until(lambda: sum(client.peer in (row['src'], row['dst'])
                                for row in relay.circuits()) <= 6 + 2, what='room')
    for client in (ann, bob, cleo):
        assert not client.seen('disconnected', 0, peer=relay.peer)


@pytest.mark.parametrize('topic', [SYNC, DIRECTORY])
@pytest.mark.parametrize('size', [12, 60000])
def test_dusk_44_45_gossip_through_the_relay(relay, clients, topic, size):
    """Two clients that know nothing of each other; the third is the author's own."""
    ann, bob, cleo = clients(), clients(), clients()
    for client in (ann, bob, cleo):
        client.day(relay)
        client.hears(relay, topic)
    began = time.monotonic()
    ann.ask('publish-bytes', topic, size, 'd')
    published = ann.expect('published')
    for client in (bob, cleo):
        event = heard_once(client, published, size, timeout=90 if REFERENCE else 15)
        assert event['author'] == ann.peer and event['from'] == relay.peer
        assert event['sha256'] == hashlib.sha256(b'd' * size).hexdigest()
    if not REFERENCE:  # at once, not at a heartbeat of ten seconds (dusk.md §10.3)
        assert time.monotonic() - began < 5 * SLOW
    assert not ann.seen('gossip', 0, id=published['id'])


@ours_only
def test_dusk_47_the_same_data_is_forwarded_once(relay, clients):
    """The client itself publishes nothing twice within 60 s; another with the same words is another
    author, and another id."""
    ann, bob = clients(), clients()
    for client in (ann, bob):
        client.day(relay)
        client.hears(relay, SYNC)
    ann.ask('publish', SYNC, 'said once')
    first = ann.expect('published')
    heard_once(bob, first, 9)
    ann.ask('publish', SYNC, 'said once')
    with pytest.raises(Refused):
        ann.expect('published')
    bob.ask('publish', SYNC, 'said once')
    second = bob.expect('published')
    assert second['id'] != first['id']
    heard_once(ann, second, 9)


@ours_only
def test_dusk_a_crowd_gossips(relay, clients):
    """Eight clients in one community: each hears each once, whatever circuits they have opened to
    one another."""
    crowd = [clients(refresh_ms=2000) for _ in range(8)]
    for client in crowd:
        client.day(relay, namespaces=('dusk/community/crowd',), watched=('dusk/community/crowd',))
    for client in crowd:
        client.hears(relay, SYNC)
    said = [client.ask('publish', SYNC, 'from', client.peer).expect('published')
            for client in crowd]
    for client in crowd:
        for published, author in zip(said, crowd):
            if author is not client:
                client.expect('gossip', since=0, timeout=30, id=published['id'])
    time.sleep(0.3)
    for client in crowd:
        ids = [event['id'] for event in client.seen('gossip', 0)]
        assert len(ids) == len(set(ids))
        assert not client.seen('disconnected', 0, peer=relay.peer)


def test_dusk_js_and_go_gossip_with_it(relay, clients):
    """Whatever /meshsub/1.1.0 speaks: each hears each, once, though js and go have another message
    id and ask the relay into their mesh."""
    with Gossiper('js', relay, SYNC) as js, Gossiper('go', relay, SYNC) as go:
        dusk = clients()
        dusk.day(relay)
        dusk.hears(relay, SYNC)
        everybody = {'x': dusk, 'y': js, 'z': go}
        for letter, author in everybody.items():
            author.ask('publish-bytes', SYNC, 3000, letter).expect('published')
            digest = hashlib.sha256(letter.encode() * 3000).hexdigest()
            for client in everybody.values():
                if client is not author:
                    event = client.expect('gossip', since=0, timeout=90 if REFERENCE else 15,
                                          author=author.peer, sha256=digest)
                    assert event['from'] == relay.peer
        time.sleep(1.5)  # a heartbeat of theirs, and what they might ask for again
        for client in everybody.values():
            found = [(e['author'], e['sha256']) for e in client.seen('gossip', 0)]
            assert len(found) == len(set(found)), found
            assert not client.seen('disconnected', 0)


# ---- the relay goes and comes -------------------------------------------------------------------

@pytest.mark.parametrize('how', ['stop', 'kill'])
@ours_only
def test_dusk_65_across_a_restart(start, clients, how):
    """Same identity, and all that was acknowledged is there before anybody comes back: who asks first
    is a third client. The others come back by themselves."""
    relay = start()
    peer = relay.peer
    ann, bob = clients(), clients()
    ann.day(relay, namespaces=('dusk/peers',), name='Ann the lasting')
    ann.expect('registered', since=0, namespace='dusk/peers')
    assert ann.expect('dir-register', since=0)['ok']
    bob.day(relay)
    gone = clients()  # leaves, and stays on record
    gone.day(relay)
    gone.registered('dusk/peers')
    gone.ask('dir-register', 'Gone the lasting')
    assert gone.expect('dir-register')['ok']
    gone.quit()
    ann.since, bob.since = len(ann.events), len(bob.events)
    if how == 'stop':
        assert relay.stop() == 0
    else:
        relay.kill()
    assert ann.expect('retrying')['ms'] == 2000 == bob.expect('retrying')['ms']
    relay.start()
    assert relay.peer == peer
    third = clients()
    third.day(relay)
    rows = third.discovered('dusk/peers')
    assert {ann.peer, gone.peer} <= set(rows)
    assert third.found('the lasting').keys() == {ann.peer, gone.peer}
    for client in (ann, bob):
        assert client.expect('reserved', timeout=30, errors=False)['relay'] == peer
    ann.expect('registered', namespace='dusk/peers')
    move(bob, ann, relay, 1 << 20)


@ours_only
def test_dusk_65_a_relay_long_gone(start, clients):
    """The back-off doubles, and starts again at two seconds after it has succeeded."""
    relay = start(turn=False)
    alone = clients()
    alone.day(relay)
    for _ in range(2):
        alone.since = len(alone.events)
        relay.kill()
        events = alone.expect('retrying', count=2)
        assert [event['ms'] for event in events] == [2000, 4000]
        relay.start()
        alone.expect('reserved', timeout=30, errors=False)


@ours_only
def test_dusk_refused_clients_come_back(start, clients):
    """A client does not ask for a second reservation on a connection (dusk.md §1.1, 8): the relay
    that refused one ends it, so that the client comes back when there may be room."""
    relay = start('--max-reservations', 1, turn=False)
    first, second = clients(), clients()
    first.day(relay)
    second.ask('reserve', relay.address)
    second.expect('reservation-refused')
    second.expect('disconnected', errors=False, peer=relay.peer)
    assert second.expect('retrying', errors=False)['ms'] == 2000
    first.quit()
    second.expect('reserved', timeout=60, errors=False)


# ---- the whole day ------------------------------------------------------------------------------

def turn_client(at, kind, told):
    path = {'udp': UdpPath, 'tcp': TcpPath}[kind](at)
    return TurnClient(path, user=told['username'], password=told['password'])


@ours_only
@pytest.mark.parametrize('find', ['directory', 'rendezvous'])
def test_dusk_two_clients_find_each_other_by_name_and_call(relay, clients, find):
    """By name, then a circuit with equal hashes, then credentials and a call: all of it through one
    process."""
    ann, bob = clients(), clients()
    ann.day(relay, namespaces=('dusk/peer/%s' % ann.peer,), name='Ann %s' % find)
    ann.expect('registered', since=0)
    assert ann.expect('dir-register', since=0)['ok']
    bob.day(relay)
    if find == 'directory':
        assert bob.found('ann %s' % find)[ann.peer]['display_name'] == 'Ann %s' % find
    else:
        assert ann.peer in bob.discovered('dusk/peer/%s' % ann.peer)
    bob.expect('connected', since=0, peer=ann.peer)  # by itself, as it dials whom it finds
    assert bob.circuits(ann.peer)
    move(bob, ann, relay, 8 << 20)
    at = relay.ip, 3478
    calls = []
    try:
        for client, kind in ((ann, 'udp'), (bob, 'tcp')):
            client.ask('credentials')
            call = turn_client(at, kind, client.expect('credentials'))
            calls.append(call)
            call.allocate()
        a, b = calls
        a.permit(b.relayed[0])
        b.permit(a.relayed[0])
        for payload in (b'voice', bytes(1200)):
            a.send(b.relayed, payload)
            assert b.data() == (a.relayed, payload)
            b.send(a.relayed, payload)
            assert a.data() == (b.relayed, payload)
    finally:
        for call in calls:
            call.close()


@ours_only
@pytest.mark.skipif(unpacked('turnutils_uclient') is None,
                    reason='no turnutils_uclient: run tools/deps --test')
def test_dusk_coturns_client_takes_the_credentials(start, clients):
    relay = start('--turn-compat-channels')
    alone = clients()
    alone.day(relay)
    alone.ask('credentials')
    told = alone.expect('credentials')
    path, env = unpacked('turnutils_uclient')
    done = subprocess.run([path, '-y', '-c', '-n', '20', '-u', told['username'], '-w',
                           told['password'], relay.ip], env=env, capture_output=True, text=True,
                          errors='replace', timeout=60 * SLOW)
    total = re.search(r'start_mclient: tot_send_msgs=(\d+), tot_recv_msgs=(\d+)', done.stdout)
    assert total and total[1] == total[2] == '40', done.stdout[-3000:]
    assert told['password'] not in relay.log()
