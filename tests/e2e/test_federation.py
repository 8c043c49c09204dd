"""dusk.md §10.4, §13 check 50, §14: relays that dial each other (engine/dial.h)."""

import re
import socket
import struct
import time

import pytest

import noise
import rawp2p
from circuit import reserve
from rawp2p import DATA, HEADER, SYN, read_mss
from dusk_clients import Reference
from rdv import Peer, fresh
from relay import SLOW, next_ip
from transport import Secured, Tcp
from wire import (IDENTIFY, MSS, NOISE, OK, YAMUX, Identify, Key, mss, one, peer_id_of, unpb,
                  verify)

HEARD = r'federation: %s registered in %s at relay %.30s'  # a line's end may be cut


def connected(relay, n=1):
    """How many of its peer relays; as soon as there are so many."""
    relay.until(lambda: relay.ctl('status')[0]['peer_relays_connected'] == n, 30,
                '%d connected peer relays' % n)


def federated(start, *addresses, **options):
    env = dict(options.pop('env', {}), DUSK_PEER_RELAYS=','.join(addresses))
    return start(preset='dusk', env=env, **options)


# ---- between relays of ours ---------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dusk_50_two_relays_know_each_other(start):
    first = start(preset='dusk')
    second = federated(start, first.address)
    connected(second)
    assert second.ctl('status')[0]['peer_relays'] == 1
    metrics = second.metrics()
    assert metrics['sluice_peer_relays'] == metrics['sluice_peer_relays_connected'] == 1
    assert metrics['sluice_dials_total'] >= 1
    second.wait_log('INFO dusk_relay\\] peer relay connected: ' + first.peer)
    first.wait_log('peer connected: ' + second.peer)
    turns = second.metrics()['sluice_loop_turns_total']
    time.sleep(1)
    assert second.metrics()['sluice_loop_turns_total'] - turns < 500, 'a quiet link costs nothing'
    assert first.ctl('status')[0]['peer_relays'] == 0, 'to the other it is a peer like any'
    with first.connect() as one_, second.connect() as other:
        assert reserve(one_).status == reserve(other).status == OK


def test_dusk_50_a_registration_is_told_to_the_other_relay_once(start):
    """And to a third, which has it by two ways; and none hears of its own (no loops). One shard
    each: with two, links to different shards may bring the line twice."""
    first = start(preset='dusk', shards=1)
    second = federated(start, first.address, shards=1)
    third = federated(start, second.address, first.address, shards=1)
    connected(second)
    connected(third, 2)
    ns = fresh('fed')
    with Peer(first) as peer:
        def told():
            """Until gossip's streams are up, and once more."""
            peer.register(ns)
            return re.search(HEARD % (r'\w+', ns, first.peer), second.log()) and \
                re.search(HEARD % (r'\w+', ns, first.peer), third.log())
        second.until(told, 30, 'a federation message')
        again = fresh('fed')
        peer.register(again)
        for relay in second, third:
            relay.wait_log(HEARD % (r'\w+', again, first.peer))
        time.sleep(1)
        for relay in second, third:
            assert len(re.findall(HEARD % (r'\w+', again, first.peer), relay.log())) == 1
        assert 'federation: ' not in first.log(), 'its own come back to nobody'


@pytest.mark.sanitize
def test_dusk_50_a_lost_link_is_dialled_again(start):
    first = start(preset='dusk')
    second = federated(start, first.address)
    connected(second)
    host, port = first.at
    first.argv[first.argv.index('--listen-p2p') + 1] = '%s:%d' % (host, port)
    first.kill()
    second.wait_log('WARN dusk_relay\\] peer relay lost: ' + first.peer)
    connected(second, 0)
    time.sleep(3)  # while nobody is there
    first.start()
    connected(second)
    assert second.metrics()['sluice_dials_total'] <= 5, 'each pause is longer'
    assert second.metrics()['sluice_dials_failed_total'] >= 1
    assert first.stop() == 0  # an orderly end is a loss too
    second.wait_log('WARN dusk_relay\\] peer relay lost: ' + first.peer, count=2)


def test_dusk_50_ourselves_and_what_cannot_be_parsed(start):
    """Ignored aloud; by id before a dial, by address after one."""
    relay = start(preset='dusk')
    host, port = relay.at
    relay.argv[relay.argv.index('--listen-p2p') + 1] = '%s:%d' % (host, port)
    assert relay.stop() == 0
    relay.env['DUSK_PEER_RELAYS'] = ' %s , nonsense,%s' % (relay.address, relay.bare)
    relay.start()
    relay.wait_log('nonsense is ignored')
    relay.wait_log('is this relay itself: left out', count=2)
    time.sleep(3)
    assert relay.metrics()['sluice_dials_total'] == 1
    assert relay.metrics()['sluice_peer_relays_connected'] == 0
    relay.until(lambda: relay.conns() == [], 5, 'no connection to itself')


def test_dusk_50_both_name_each_other(start):
    """One connection stays, whoever dialled it."""
    first = start(preset='dusk')
    second = federated(start, first.address)
    connected(second)
    for relay in first, second:
        at = relay.argv.index('--listen-p2p') + 1
        relay.argv[at] = '%s:%d' % relay.at
    assert first.stop() == 0
    first.env['DUSK_PEER_RELAYS'] = second.address
    first.start()
    connected(first)
    connected(second)
    time.sleep(7)  # two looks at it
    connected(first)
    connected(second)
    assert len(first.conns()) == len(second.conns()) == 1


def test_dusk_50_another_peer_at_that_address(start):
    first = start(preset='dusk')
    other = '12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB'
    second = federated(start, first.bare + '/p2p/' + other)
    second.wait_log('somebody else answers there')
    assert second.ctl('status')[0]['peer_relays_connected'] == 0


def test_dusk_50_by_name(start):
    """dns4, resolved on the errand thread (§14: the original has no DNS)."""
    first = start(preset='dusk')
    second = federated(start, '/dns4/localhost/tcp/%d/p2p/%s' % (first.at[1], first.peer),
                       '/dns4/no.such.name.invalid/tcp/1')
    connected(second)
    second.wait_log('peer relay /dns4/no.such.name.invalid/tcp/1: ', timeout=20)
    assert second.metrics()['sluice_peer_relays'] == 2


def test_dusk_50_our_own_flag(start):
    """Without a preset: the same, and a bad value is refused (tests/unit/test_config_env.c)."""
    first = start()
    second = start('--peer-relay', first.address)
    connected(second)


def test_dusk_50_a_drain_dials_nobody(start):
    relay = federated(start, '/ip4/127.0.0.1/tcp/1')
    relay.wait_log('connection refused')
    began = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - began < 5 * SLOW


# ---- what it says on the wire -------------------------------------------------------------------

class Answerer:
    """The other end of a dial, by the specification: multistream-select as listener, Noise
    responder, yamux server; everything blocking."""

    def __init__(self, muxers=()):
        self.key, self.muxers = Key(), muxers
        self.listener = socket.create_server((next_ip(), 0))
        self.listener.settimeout(20 * SLOW)

    @property
    def address(self):
        return '/ip4/%s/tcp/%d' % self.listener.getsockname()

    def accept(self):
        return Tcp(None, sock=self.listener.accept()[0])

    def close(self):
        self.listener.close()

    def secure(self, tcp):
        """(Secured, peer id, the muxers that it names)"""
        for want in MSS, NOISE:
            assert read_mss(tcp) == want
        tcp.send(mss(MSS, NOISE))
        me = noise.Initiator(self.key)  # its state serves either role
        early = tcp.recv(struct.unpack('>H', tcp.recv(2))[0])
        assert len(early) == 32, 'message 1 has no payload (§2)'
        me._mix_hash(early)
        me._mix_hash(b'')
        e = noise.raw_public(me.e)
        me._mix_hash(e)
        me._mix_key(me.e, early)
        static = noise.raw_public(me.s)
        sealed = me._seal(static)
        me._mix_key(me.s, early)
        tcp.send(noise.frame(e + sealed + me._seal(noise.payload(self.key, static, self.muxers))))
        last = tcp.recv(struct.unpack('>H', tcp.recv(2))[0])
        rs = me._open(last[:48])
        me._mix_key(me.e, rs)
        fields = unpb(me._open(last[48:]))
        verify(one(fields, 1), one(fields, 2), noise.SIGNED + rs)
        k1, k2 = me._hkdf(b'')
        me.rx, me.tx = noise.Cipher(k1), noise.Cipher(k2)
        named = [m.decode() for m in unpb(one(fields, 4, b'')).get(2, [])]
        return Secured(tcp, me), peer_id_of(one(fields, 1)), named


@pytest.mark.parametrize('early', [False, True], ids=['multistream', 'early'])
def test_dusk_50_the_dialler_keeps_to_the_specification(start, early):
    answerer = Answerer([YAMUX] if early else [])
    relay = federated(start, answerer.address)
    tcp = answerer.accept()
    secured, peer, named = answerer.secure(tcp)
    assert peer == relay.peer_id and named == [YAMUX]
    if not early:
        assert [read_mss(secured), read_mss(secured)] == [MSS, YAMUX]
        secured.send(mss(MSS, YAMUX))
    connected(relay)
    # a stream of ours, with an even id: it serves there like anywhere
    hello = mss(MSS, IDENTIFY)
    secured.send(HEADER.pack(0, DATA, SYN, 2, len(hello)) + hello)
    got, opened = b'', set()
    while True:
        version, kind, flags, sid, length = HEADER.unpack(secured.recv(12))
        body = secured.recv(length) if kind == DATA else b''
        assert version == 0
        if flags & SYN:
            assert sid % 2 == 1, 'the client has the odd ids'
            opened.add(sid)
        if sid == 2:
            got += body
            if flags & rawp2p.FIN:
                break
    assert got.startswith(mss(MSS, IDENTIFY))
    message = got[len(mss(MSS, IDENTIFY)):]
    told = Identify(message[1 if message[0] < 0x80 else 2:])
    assert told.protocol_version == '/dusk/relay/1.0.0'
    assert peer_id_of(told.key) == relay.peer_id
    port = struct.pack('>H', relay.at[1])
    assert all(port in address for address in told.listen), 'its door, not this socket'
    tcp.close()
    relay.wait_log('peer relay lost')
    answerer.close()


@pytest.mark.parametrize('how', ['na', 'junk', 'wrong signature',
                                 pytest.param('silence', marks=pytest.mark.long)])
def test_dusk_50_an_answer_that_is_none(start, how):
    """The attempt ends, at the latest after 10 s; another follows; nothing is left."""
    answerer = Answerer()
    relay = federated(start, answerer.address)
    tcp = answerer.accept()
    if how == 'silence':
        pass
    elif how == 'na':
        read_mss(tcp), read_mss(tcp)
        tcp.send(mss(MSS, 'na'))
    elif how == 'junk':
        tcp.send(mss('HTTP/1.1 400 Bad Request'))
    else:
        true, answerer.key.sign = answerer.key.sign, lambda data: Key().sign(data)
        try:
            answerer.secure(tcp)
        except Exception:
            pass
        answerer.key.sign = true
    assert tcp.closed_within(10 + 5 * SLOW) is not None
    relay.wait_log(r'WARN dusk_relay\] peer relay /ip4/127\S+: .*; again in \d+ s')
    again = answerer.accept()
    secured, _, _ = answerer.secure(again)
    assert [read_mss(secured), read_mss(secured)] == [MSS, YAMUX]
    secured.send(mss(MSS, YAMUX))
    connected(relay)
    again.close()
    answerer.close()


# ---- with the original's libraries --------------------------------------------------------------

@pytest.fixture
def original(tmp_path):
    """A relay of rust-libp2p 0.54.1, which listens (tests/interop/dusk-rust)."""
    live = Reference(tmp_path / 'original', next_ip(), {}).start()
    yield live
    live.check()
    live.stop()


@pytest.mark.interop
def test_dusk_50_a_relay_of_rust_libp2p_is_dialled_and_passes_messages_on(start, original):
    """It meshes as with any peer, so what one of ours announces reaches another through it."""
    ours = [federated(start, original.address, shards=1) for _ in range(2)]
    for relay in ours:
        connected(relay)
    ns = fresh('fed')
    with Peer(ours[0]) as peer:
        def told():
            """Once a minute at most is the same said again, so each time it is another."""
            peer.register(fresh(ns))
            return re.search(HEARD % (r'\w+', ns + r'-\S+', ours[0].peer), ours[1].log())
        ours[1].until(told, 40, 'a federation message through the other relay')
    time.sleep(1)
    for relay in ours:
        connected(relay)
        assert relay.metrics()['sluice_dials_total'] == 1, 'the link holds'
    assert 'federation: ' not in ours[0].log()
