"""dusk.md §13, checks 35 to 43: directory, TURN credentials and gif, on the dusk preset. What the gif
service does with a key is in test_gif.py."""

import base64
import concurrent.futures
import hashlib
import hmac
import itertools
import pathlib
import re
import time

import pytest

import dusk
from dusk import (CREDENTIALS, DIRECTORY, GIF, MIB, REFUSED, REMOVE, Pairs, Peer, Raw, begin, cbor,
                  finish, gif, head, open_map, pieces, register, search, uncbor)
from rawp2p import NotAvailable
from relay import SLOW, Relay, makes
from turn import UdpPath, Client
from wire import Key

GOLDEN = {}
for line in (pathlib.Path(__file__).resolve().parents[1] / 'vectors/dusk/messages.txt').open():
    name, wire = line.split(' ', 1)
    GOLDEN[name] = bytes.fromhex(wire)
PROTOCOLS = [DIRECTORY, CREDENTIALS, GIF]
SECRET = 'test-secret'
ENV = {'DUSK_TURN_SECRET': SECRET, 'DUSK_TURN_PUBLIC_IP': '192.0.2.1'}

_words = itertools.count(1)


def word(head='w'):
    """A text that stands in no other test's names."""
    return '%s%dx%x' % (head, next(_words), time.monotonic_ns())


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    relay = Relay(tmp_path_factory.mktemp('dusk'), '--listen-p2p', '127.0.0.1:0', '--listen-turn',
                  '127.0.0.1:0', preset='dusk', listen=None, env=ENV).start()
    yield relay
    relay.check()
    assert relay.stop() == 0


@pytest.fixture
def peer(live):
    yield from makes(Peer, live)


# ---- 35: the bytes -------------------------------------------------------------------------------

def test_this_client_writes_and_reads_the_published_messages():
    assert register('alice', '/x') == GOLDEN['register']
    assert cbor({'Register': {'display_name': 'alice'}}) == GOLDEN['register_old']
    assert search('ali') == GOLDEN['search']
    assert REMOVE == GOLDEN['remove']
    assert dusk.credentials('12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB') == \
        GOLDEN['cred_request']
    assert gif() == GOLDEN['gif_search']
    assert gif('trending', '') == GOLDEN['gif_trending']
    for name in GOLDEN:
        uncbor(GOLDEN[name])


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dusk_35_every_row_of_the_table(peer):
    one = peer()
    before = int(time.time())
    assert one.raw(DIRECTORY, GOLDEN['register']) == GOLDEN['ok']
    row, = one.search(one.id)
    assert row['display_name'] == 'alice'
    assert row['relay_addr'] == ''  # /x is none
    assert before <= row['last_seen'] <= time.time() + 1
    raw = one.raw(DIRECTORY, search(one.id))
    want = b''.join([bytes.fromhex('a167526573756c747381a4'), cbor('peer_id'), cbor(one.id),
                     cbor('display_name'), cbor('alice'), cbor('last_seen'),
                     cbor(row['last_seen']), cbor('relay_addr'), cbor('')])
    assert raw == want
    assert one.raw(DIRECTORY, GOLDEN['search'].replace(b'ali', b'#%~')) == GOLDEN['results_none']
    assert one.raw(DIRECTORY, register('')) == GOLDEN['error']
    assert one.raw(DIRECTORY, GOLDEN['remove']) == GOLDEN['ok']
    assert one.search(one.id) == []


def test_dusk_35_an_address_through_this_relay_to_this_peer_is_kept(peer, live):
    one = peer()
    assert one.register(word()) == 'Ok'
    row, = one.search(one.id)
    assert row['relay_addr'] == one.address
    other = '/dns4/relay.example/tcp/4001/p2p/%s/p2p-circuit/p2p/%s' % (live.peer, one.id)
    assert one.register(word(), other) == 'Ok'
    assert one.search(one.id)[0]['relay_addr'] == other


# ---- 36: names -----------------------------------------------------------------------------------

@pytest.mark.parametrize('name, kept', [
    ('', None), (' ', None), ('\u3000\u00a0\t', None), ('a', 'a'), ('a' * 64, 'a' * 64),
    ('a' * 65, None), ('  alice \n', 'alice'), ('\u00e9' * 64, '\u00e9' * 64),
    ('\u00e9' * 65, None), ('\U0001f986' * 64, '\U0001f986' * 64), ('\u2003x\u2003', 'x'),
    ('a\nb', None), ('a\0b', None), ('\u0085a', 'a'), ('a\u009f', None), ('a' * 100000, None),
    (' ' * 8000 + 'b' + ' ' * 8000, 'b'), (' ' * 100000 + 'b', None),
], ids=lambda v: repr(v)[:24])
def test_dusk_36_names(peer, name, kept):
    one = peer()
    reply = one.register(name)
    if kept is None:
        assert reply == ('Error', REFUSED)
        assert one.search(one.id) == []
    else:
        assert reply == 'Ok'
        assert one.names(one.id) == [kept]
        one.remove()


def test_dusk_36_a_name_that_is_refused_leaves_the_old_one(peer):
    one, name = peer(), word()
    assert one.register(name) == 'Ok'
    assert one.register('x' * 65) == ('Error', REFUSED)
    assert one.names(one.id) == [name]


# ---- 37: tolerance -------------------------------------------------------------------------------

def spelled(name):
    """One request, spelled in many ways."""
    inner = [('display_name', name), ('relay_addr', '')]
    shuffled = inner[::-1]
    unknown = [('extra', {'a': [1, -1, 2.5, None, True, b'x', {'deep': [[[]]]}]}), *inner]
    cut = [(pieces('display_name', 3, 7), pieces(name, 1)), ('relay_addr', Raw(b'\x7f\xff'))]
    text = name.encode()
    wide = Raw(b'\xb9\x00\x01' + head(3, 12, 4) + b'display_name' + head(3, len(text), 8) + text)
    key = cbor('Register')
    return {
        'old': {'Register': {'display_name': name}},
        'order': {'Register': Pairs(shuffled)},
        'unknown': {'Register': Pairs(unknown)},
        'unknown twice': {'Register': Pairs([('x', 1), ('x', 2), *inner])},
        'open': Raw(b'\xa1' + key + open_map(*inner)),
        'pieces': Raw(b'\xa1' + cbor(pieces('Register', 4)) + open_map(*cut)),
        'wide': Raw(b'\xa1' + key + wide),
        'tag in unknown': {'Register': Pairs([('t', Raw(b'\xc1\x00')), *inner])},
        'behind': Raw(cbor({'Register': dict(inner)}) + b'\xff\x00garbage'),
    }


@pytest.mark.sanitize
@pytest.mark.parametrize('how', list(spelled('ab')))
def test_dusk_37_taken(peer, how):
    one, name = peer(), word()
    assert one.directory(cbor(spelled(name)[how])) == 'Ok', how
    assert one.names(one.id) == [name]
    one.remove()


BAD = {
    'empty map': {},
    'missing': {'Register': {'relay_addr': ''}},
    'twice': {'Register': Pairs([('display_name', 'a'), ('display_name', 'b')])},
    'number': {'Register': {'display_name': 7}},
    'null': {'Register': {'display_name': 'a', 'relay_addr': None}},
    'bytes': {'Register': {'display_name': b'a'}},
    'tagged': {'Register': {'display_name': Raw(b'\xc0\x61a')}},
    'utf8': {'Register': {'display_name': Raw(b'\x62\xc3\x28')}},
    'array': {'Register': ['a', '']},
    'unit': 'Register',
    'variant': {'Rename': {'display_name': 'a'}},
    'lower': 'remove',
    'two variants': Pairs([('Search', {'query': 'a'}), ('Remove', None)]),
    'open enum': Raw(b'\xbf' + cbor('Search') + cbor({'query': 'a'}) + b'\xff'),
    'wide enum': Raw(b'\xb8\x01' + cbor('Search') + cbor({'query': 'a'})),
    'key': {'Register': Pairs([(1, 2), ('display_name', 'a')])},
    'reserved': Raw(b'\x1c'),
    'break': Raw(b'\xff'),
    'lies': Raw(b'\x9b\x00\x00\x00\x03\xff\xff\xff\xff'),
    'deep': {'Register': Pairs([('x', Raw(b'\x81' * 5000 + b'\x00')), ('display_name', 'a')])},
    'many': {'Register': Pairs([('x', [0] * 100000), ('display_name', 'a')])},
}


@pytest.mark.sanitize
@pytest.mark.parametrize('how', list(BAD))
def test_dusk_37_refused_without_a_byte(peer, how):
    one = peer()
    assert one.raw(DIRECTORY, cbor(BAD[how])) == b''
    assert one.search(one.id) == []
    assert one.alive()


@pytest.mark.sanitize
def test_dusk_37_every_truncation_of_every_request(peer):
    one = peer()
    for protocol, wire in [(DIRECTORY, register('alice', '/x')), (DIRECTORY, search('ali')),
                           (DIRECTORY, REMOVE), (CREDENTIALS, dusk.credentials(one.id)),
                           (GIF, gif())]:
        for n in range(len(wire)):
            assert one.raw(protocol, wire[:n]) == b'', (protocol, n)
    assert one.search(one.id) == []


def test_dusk_37_a_request_in_many_frames(peer):
    one, name = peer(), word()
    stream = begin(one.session, DIRECTORY, fin=False)
    for byte in register(name):
        stream.send(bytes([byte]))
    stream.close_write()
    assert uncbor(finish(stream)) == 'Ok'
    assert one.names(one.id) == [name]


# ---- 38: whose row it is -------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_38_nobody_changes_anothers_row(peer, live):
    victim, thief, name = peer(), peer(), word()
    assert victim.register(name) == 'Ok'
    row = victim.search(victim.id)
    for extra in ('peer_id', 'peer', 'id'):
        assert thief.directory(cbor({'Register': {'display_name': word(), 'relay_addr': '',
                                                  extra: victim.id}})) == 'Ok'
    assert thief.directory(cbor({'Remove': {'peer_id': victim.id}})) == 'Ok'
    assert thief.register(word(), victim.address) == 'Ok'
    assert thief.search(thief.id)[0]['relay_addr'] == ''
    assert thief.remove() == 'Ok'
    assert victim.search(victim.id) == row
    assert thief.search(thief.id) == []


@pytest.mark.parametrize('addr', [
    '/ip4/192.0.2.1/tcp/4001', '/ip4/192.0.2.1/tcp/4001/p2p/{self}',
    '/ip4/192.0.2.1/tcp/4001/p2p/{other}/p2p-circuit/p2p/{self}',
    '/ip4/192.0.2.1/tcp/4001/p2p/{relay}/p2p-circuit/p2p/{other}',
    '/ip4/192.0.2.1/tcp/1/p2p/{other}/p2p-circuit/p2p/{relay}/p2p-circuit/p2p/{self}',
    '/ip4/192.0.2.1/tcp/4001/p2p/{relay}/p2p-circuit', 'x', '/' * 100000,
])
def test_dusk_38_an_address_that_leads_elsewhere_is_not_kept(peer, live, addr):
    one, other = peer(), peer()
    text = addr.format(self=one.id, other=other.id, relay=live.peer)
    assert one.register(word(), text) == 'Ok'
    assert one.search(other.id) == []
    assert one.search(one.id)[0]['relay_addr'] == ''
    one.remove()


# ---- 39: search ----------------------------------------------------------------------------------

def test_dusk_39_substring_and_case(peer):
    one, mark = peer(), word()
    name = 'The %s_Quick\u00c9%%Fox' % mark.upper()
    assert one.register(name) == 'Ok'
    for query in (mark, mark.upper(), '  %s ' % mark, mark + '_quick', mark + '_QUICK\u00c9%f',
                  mark[1:-1], one.id, name):
        assert name in one.names(query), query
    for query in (mark + '_quick\u00e9', mark + '%', mark + '?quick', mark + '_%fox', '%' + mark,
                  one.id.lower(), one.id[:-1], mark + '\0'):
        assert name not in one.names(query), query
    one.remove()


def test_dusk_39_wildcards_are_literal(peer):
    one, two, mark = peer(), peer(), word()
    one.register(mark + '%_a')
    two.register(mark + 'bca')
    assert one.names(mark + '%_') == [mark + '%_a']
    assert one.names(mark + '___') == []
    assert one.names(mark + '%a') == []
    one.remove(), two.remove()


def test_dusk_39_an_empty_query_lists_nobody(peer):
    one = peer()
    one.register(word())
    for query in ('', ' ', '\u3000', 'q' * 257, 'q' * 100000):
        assert one.search(query) == []
    one.remove()


def test_dusk_39_newest_first_and_at_most_twenty(start, tmp_path):
    from turnd import Clock
    clock = Clock(tmp_path)
    relay = start(preset='dusk', env=clock.env)
    mark, keys = word(), [Key() for _ in range(25)]
    for i, key in enumerate(keys):
        with Peer(relay, key) as one:
            assert one.register('%s-%d' % (mark, i)) == 'Ok'
        clock.step(10)
    with Peer(relay, keys[3]) as one:
        newest = ['%s-%d' % (mark, i) for i in range(24, 4, -1)]
        assert one.names(mark) == newest
        assert one.register('%s-3' % mark) == 'Ok'  # seen again
        assert one.names(mark) == ['%s-3' % mark, *newest[:19]]
        seen = [row['last_seen'] for row in one.search(mark)]
        assert seen == sorted(seen, reverse=True) and len(seen) == 20


# ---- 40: what stays ------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_40_rows_survive_restart_and_removal_is_repeatable(start):
    relay = start(preset='dusk')
    keys, mark = [Key(), Key()], word()
    for i, key in enumerate(keys):
        with Peer(relay, key) as one:
            assert one.register('%s-%d' % (mark, i)) == 'Ok'
    with Peer(relay) as other:
        rows = sorted(other.search(mark), key=str)
        assert len(rows) == 2
        assert all(abs(row['last_seen'] - time.time()) < 100 for row in rows)
    for how in ('stop', 'kill'):
        if how == 'stop':
            assert relay.stop() == 0
        else:
            relay.kill()
        relay.start()
        with Peer(relay) as other:
            assert sorted(other.search(mark), key=str) == rows
    with Peer(relay, keys[0]) as one:
        assert [one.remove(), one.remove()] == ['Ok', 'Ok']
        assert one.names(mark) == [mark + '-1']
    relay.kill()
    relay.start()
    with Peer(relay) as other:
        assert other.names(mark) == [mark + '-1']


def test_dusk_40_a_second_register_changes_the_row(peer):
    one, mark = peer(), word()
    assert one.register(mark + 'a') == 'Ok'
    assert one.register(mark + 'b', '') == 'Ok'
    row, = one.search(one.id)
    assert (row['display_name'], row['relay_addr']) == (mark + 'b', '')
    assert one.search(mark + 'a') == []


# ---- 41: exchanges -------------------------------------------------------------------------------

def test_dusk_41_a_request_without_an_end_is_ended_at_15_s(peer):
    one, began = peer(), time.monotonic()
    streams = [begin(one.session, protocol, REMOVE, fin=False) for protocol in PROTOCOLS]
    with pytest.raises(TimeoutError):
        streams[0].recv_to_eof(13)
    for stream in streams:
        assert not finish(stream, 20)
    assert 14 < time.monotonic() - began < 19 * SLOW
    assert one.alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_dusk_41_a_mebibyte_and_one_is_refused(peer, protocol):
    one = peer()
    request = {DIRECTORY: search, CREDENTIALS: dusk.credentials,
               GIF: lambda text: gif(query=text)}[protocol]
    longest = request('x' * (MIB - len(request('')) - 4))
    assert len(longest) == MIB
    assert one.raw(protocol, longest)
    stream = begin(one.session, protocol, fin=False)
    try:
        stream.send(longest + b'\0')
        stream.close_write()
        got = finish(stream)
    except dusk.Reset:
        got = None
    assert not got
    assert one.alive() and one.search('x') is not None


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dusk_41_a_hundred_at_once(peer, live):
    one, mark = peer(), word()
    assert one.register(mark) == 'Ok'
    asks = [(DIRECTORY, search(mark)), (DIRECTORY, register(mark)), (GIF, gif()),
            (CREDENTIALS, dusk.credentials(one.id))]
    streams = [(ask, begin(one.session, *ask)) for ask in asks * 25]
    for (protocol, request), stream in streams:
        value = uncbor(finish(stream))
        if request == search(mark):
            assert [row['display_name'] for row in value['Results']] == [mark]
        elif request == register(mark):
            assert value == 'Ok'
        elif protocol == GIF:
            assert value == {'results': []}
        else:
            assert value['ttl'] == 86400


def test_dusk_41_many_peers_at_once(live):
    mark = word()

    def day(i):
        with Peer(live) as one:
            name = '%s-%d' % (mark, i)
            assert one.register(name) == 'Ok'
            assert one.names(name + '') == [name]
            assert one.remove() == 'Ok'
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(day, range(24)))
    with Peer(live) as one:
        assert one.search(mark) == []


# ---- 42: credentials -----------------------------------------------------------------------------

def recomputed(username, secret):
    return base64.b64encode(hmac.new(secret.encode(), username.encode(),
                                     hashlib.sha1).digest()).decode()


@pytest.mark.sanitize
def test_dusk_42_credentials(peer, live):
    one = peer()
    for named in (one.id, peer().id, '', 'x' * 1000):
        now = time.time()
        got = one.credentials(named or '-')
        until, _, who = got['username'].partition(':')
        assert who == one.id  # whatever the request says
        assert now + 86400 - 2 <= int(until) <= time.time() + 86400 + 2
        assert got['password'] == recomputed(got['username'], SECRET)
        assert got['ttl'] == 86400
        port = live.turn[1]
        assert got['uris'] == ['turn:192.0.2.1:%d' % port, 'turn:192.0.2.1:%d?transport=tcp' % port]


def browser_takes(uri):
    """What an ICE server entry may be (RFC 7065; the engine throws at others)."""
    return re.fullmatch(r'turn:(\[[0-9a-f:.]+\]|[A-Za-z0-9_.-]+):([1-9][0-9]{0,4})'
                        r'(\?transport=(udp|tcp))?', uri)


def test_dusk_42_they_open_the_turn_server(start):
    relay = start('--listen-p2p', '127.0.0.1:0', '--listen-turn', '127.0.0.1:0',
                  '--turn-allow-peer', '127.0.0.0/8', preset='dusk', listen=None,
                  env={'DUSK_TURN_PUBLIC_IP': '127.0.0.1'})  # the secret is the relay's own
    with Peer(relay) as one:
        got = one.credentials()
    client = Client(UdpPath(relay.turn), user=got['username'], password=got['password'])
    assert client.allocate().relayed
    client.close()
    relay.kill()
    relay.start()
    with Peer(relay, one.key) as again:
        new = again.credentials()
    until = got['username'].split(':')[0]
    assert int(new['username'].split(':')[0]) >= int(until)
    old = Client(UdpPath(relay.turn), user=got['username'], password=got['password'])
    assert old.allocate().relayed  # the secret outlives the process
    old.close()


HOSTS = [({'DUSK_TURN_PUBLIC_HOST': 'turn.example'}, 'turn.example'),
         ({'DUSK_TURN_PUBLIC_HOST': 'turn.example', 'DUSK_TURN_PUBLIC_IP': '192.0.2.9'},
          'turn.example'),
         ({'DUSK_TURN_PUBLIC_HOST': '', 'DUSK_TURN_PUBLIC_IP': '192.0.2.9'}, '192.0.2.9'),
         ({'DUSK_TURN_PUBLIC_HOST': '2001:db8::7'}, '[2001:db8::7]')]


@pytest.mark.parametrize('env, host', HOSTS, ids=[host for _, host in HOSTS])
def test_dusk_42_hosts_of_the_uris(start, env, host):
    relay = start('--listen-p2p', '127.0.0.1:0', '--listen-turn', '127.0.0.1:0', preset='dusk',
                  listen=None, env=dict(env, DUSK_TURN_SECRET=SECRET))
    with Peer(relay) as one:
        uris = one.credentials()['uris']
    port = relay.turn[1]
    assert uris == ['turn:%s:%d' % (host, port), 'turn:%s:%d?transport=tcp' % (host, port)]
    assert all(map(browser_takes, uris))


OFF = [({'DUSK_TURN_ENABLED': 'false', **ENV}, []),
       ({'DUSK_TURN_SECRET': SECRET, 'DUSK_TURN_PUBLIC_IP': '', 'DUSK_TURN_PUBLIC_HOST': ''},
        ['--listen-turn', '0.0.0.0:0']),
       ({'DUSK_TURN_SECRET': SECRET, 'DUSK_TURN_PUBLIC_HOST': 'not a host'},
        ['--listen-turn', '0.0.0.0:0'])]


@pytest.mark.parametrize('env, flags', OFF, ids=['disabled', 'no host', 'no good host'])
def test_dusk_42_not_offered_without_a_server_or_a_host(start, env, flags):
    relay = start('--listen-p2p', '127.0.0.1:0', *flags, preset='dusk', listen=None, env=env)
    with Peer(relay) as one:
        with pytest.raises(NotAvailable):
            one.credentials()
        assert one.register(word()) == 'Ok'


# ---- 43: gif without a key -----------------------------------------------------------------------

@pytest.mark.sanitize
def test_dusk_43_empty_at_once_without_a_key(peer, live):
    one = peer()
    assert one.raw(GIF, GOLDEN['gif_search']) == GOLDEN['gif_none']  # warm
    for request in (GOLDEN['gif_search'], GOLDEN['gif_trending'], gif('nonsense', 'x', 0),
                    gif('search', 'q' * 100000, 20), gif('search', 'x', (1 << 32) - 1)):
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert one.raw(GIF, request) == GOLDEN['gif_none']
            took.append(time.monotonic() - began)
        assert min(took) < 0.1 * SLOW
    live.wait_log('gif: no API key')
    assert len(re.findall('gif: no API key', live.log())) == 1
