"""dig.md §20, checks 21-34: what is carried to whom (§5), lists of peers, their addresses (§7).
Peers land on either shard as their ports will have it; where that matters there are so many of them
that both ways are taken."""

import os
import random
import threading
import time

import pytest

from dig import BINARY, TEXT, U64_MAX, frame, fresh_id, fresh_net, written
from relay import SLOW, next_ip


# ---- 21-24: relay_message ------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_21_a_forged_from(digd):
    """Among six peers, so that there are pairs of one shard and of two."""
    peers = digd.group(6)
    for a in peers:
        for b in peers:
            if a is not b:
                a.relay(b, [22, 3, 1, 0, 255], seq=42, from_=b.id)
                assert b.next() == {'type': 'relay_message', 'from': a.id, 'to': b.id,
                                    'payload': [22, 3, 1, 0, 255], 'seq': 42}
    for a in peers:
        a.alive()


@pytest.mark.sanitize
def test_dig_21_every_order_of_members(digd):
    """Escapes, space, unknown members: what is forwarded is written as §4.2 has it, but the text of
    the payload, which is carried as it came."""
    a, b = digd.group(2)
    parts = ['"type":"relay_message"', '"from":"x"', '"to":"%s"' % b.id, '"payload":[1,20,255]',
             '"seq":18446744073709551615']
    rng = random.Random(7)
    for n in range(60):
        some = parts + ['"more":[{"to":"nobody"},"payload"]'] * (n % 2)
        rng.shuffle(some)
        a.send(frame((TEXT, BINARY)[n % 3 == 0], ('{%s}' % ','.join(some)).encode()))
        b.expect('relay_message', from_=a.id, to=b.id, payload=[1, 20, 255], seq=U64_MAX)
    escaped = ''.join('\\u%04x' % ord(c) if i % 3 else c for i, c in enumerate(b.id))
    a.text('{"t\\u0079pe":"relay\\u005fmessage","fr\\u006fm":"\\"","\\u0074o":"%s",'
           '"payloa\\u0064":[],"seq":0}' % escaped)
    b.expect('relay_message', from_=a.id, to=b.id, payload=[], seq=0)


@pytest.mark.sanitize
def test_dig_21_every_byte_and_every_length(digd):
    a, b = digd.group(2)
    a.relay(b, range(256))
    assert b.expect('relay_message')['payload'] == list(range(256))
    for size in list(range(0, 70)) + [125, 126, 127, 255, 256, 1023, 4096, 16384, 17000, 32768]:
        payload = list(os.urandom(size))
        a.relay(b, payload, seq=size)
        assert b.expect('relay_message', seq=size)['payload'] == payload, size


def test_dig_21_space_within_a_payload(digd):
    """It may be carried as it came or be written anew (§4.2), but the numbers are the same."""
    a, b = digd.group(2)
    a.text('{"type":"relay_message","from":"x","to":"%s","payload": [ 1 ,\t2,\r\n3 ] ,"seq":1}' %
           b.id)
    assert b.next() == {'type': 'relay_message', 'from': a.id, 'to': b.id, 'payload': [1, 2, 3],
                        'seq': 1}


@pytest.mark.sanitize
def test_dig_22_unknown_and_elsewhere(digd):
    a, b = digd.group(2)
    other = digd.peer()
    for to in (fresh_id(), other.id, '', 'x', b.id.upper(), b.id[:-1], b.id + '0', b.id + ' ',
               'x' * 200000):
        a.relay(to, [1])
        a.error(3)
    b.alive()
    other.alive()
    a.relay(b, [2])
    b.expect('relay_message', payload=[2])


@pytest.mark.sanitize
def test_dig_23_to_oneself(digd):
    a, b = digd.group(2)
    a.relay(a, [1, 2, 3], seq=7, from_='somebody')
    assert a.next() == {'type': 'relay_message', 'from': a.id, 'to': a.id, 'payload': [1, 2, 3],
                        'seq': 7}
    b.alive()


LONG = ','.join(str(n) for n in range(1, 33))  # longer than what a scan looks at in one go
PAYLOADS = [
    '[256]', '[-1]', '"abc"', '[1.0]', '[1e0]', '["1"]', '[null]', '[[1]]', '[1,]', '[,1]', '[1 2]',
    '[01]', '[00]', '[+1]', '[1', '1]', 'null', '{}', '5', '[999]', '[1000]', '[2560]', '[300,1]',
    '[1,256]', '[true]', '[0x1]', '[-0]', '[0.0]', '[1,,2]', '[1;2]', '[ ]x', '[\x0b1]',
    '[99999999999999999999]', '[%s,256]' % LONG, '[%s,,1]' % LONG, '[%s,]' % LONG, '[%s 1]' % LONG]


@pytest.mark.sanitize
def test_dig_24_no_payloads(digd):
    a, b = digd.group(2)
    for payload in PAYLOADS:
        for text in ('{"type":"relay_message","from":"x","to":"%s","payload":' % b.id + payload +
                     ',"seq":1}',
                     '{"type":"broadcast","from":"x","payload":%s,"exclude":[]}' % payload):
            try:
                a.code2(text)
            except AssertionError as e:
                raise AssertionError('%s: %s' % (payload, e)) from None
    b.alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('to', ['known', 'unknown'])
def test_dig_24_members_missing_or_wrong(digd, to):
    """Judged before the target is looked for."""
    a, b = digd.group(2)
    right = {'type': 'relay_message', 'from': 'x', 'to': b.id if to == 'known' else 'x',
             'payload': [1],
             'seq': 1}
    for name in ('from', 'to', 'payload', 'seq'):
        a.code2(written({k: v for k, v in right.items() if k != name}))
        for wrong in (None, {}, True, ['x'], 5 if name in ('from', 'to') else 'x'):
            a.code2(written(dict(right, **{name: wrong})))
    cast = {'type': 'broadcast', 'from': 'x', 'payload': [1], 'exclude': []}
    for name in ('from', 'payload', 'exclude'):
        a.code2(written({k: v for k, v in cast.items() if k != name}))
        for wrong in (None, {}, True, 5):
            a.code2(written(dict(cast, **{name: wrong})))
    for exclude in ([5], [None], [[]], ['x', 5], 'x'):
        a.code2(written(dict(cast, exclude=exclude)))
    b.alive()


# ---- 25: broadcast -------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_25_broadcast(digd):
    peers = digd.group(7)
    other = digd.peer()
    a, c = peers[0], peers[3]
    for exclude in ([c.id], [c.id, c.id, fresh_id(), a.id, '', 'é']):
        a.say('broadcast', from_='forged', payload=[1, 255], exclude=exclude)
        for peer in peers:
            if peer not in (a, c):
                assert peer.next() == {'type': 'broadcast', 'from': a.id, 'payload': [1, 255],
                                       'exclude': []}
    a.say('broadcast', from_='x', payload=[], exclude=[p.id for p in peers])
    a.text('{"exclude":["%s"],"payload":[7],"from":"","more":{},"type":"broadcast"}' % ''.join(
        '\\u%04x' % ord(x) for x in c.id))
    for peer in peers:
        if peer not in (a, c):
            peer.expect('broadcast', payload=[7])
    for peer in peers + [other]:
        peer.alive()


def test_dig_25_alone(digd):
    a = digd.peer()
    a.say('broadcast', from_='x', payload=[1], exclude=[])
    a.alive()


@pytest.mark.tsan
def test_dig_25_order_of_one_sender(digd):
    """Broadcasts and messages to one, from one, in the order in which they were said."""
    a, *others = digd.group(5)
    for n in range(150):
        a.say('broadcast', from_='x', payload=[n], exclude=[])
        for other in others:
            a.relay(other, [n], seq=n)
    for other in others:
        for n in range(150):
            other.expect('broadcast', payload=[n])
            other.expect('relay_message', payload=[n], seq=n)


# ---- 26: what is echoed --------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_26_hostile_ids_in_errors(digd):
    """error() wants one printable line of bounded length; judge() wants valid JSON."""
    a = digd.peer()
    for to in ('"', '\\', '\n', '","code":1,"x":"', 'ß€😀', '\u0000', '\u001f\u007f\u0085\u2028',
               '"}{"type":"error"', 'é' * 5000):
        a.relay(to, [1])
        a.error(3)
        a.say('hole_punch_request', peer_id='x', target_peer_id=to, external_addr='1.2.3.4:5')
        a.error(3)
        a.say('hole_punch_result', peer_id=to, success=True)
        a.error(3)


# ---- 27: order, and a reader that does not read --------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('size', [1, 100, 3000])
def test_dig_27_all_in_order(digd, size):
    """1000 messages; sender and reader at once."""
    a, b = digd.group(2)
    payload = list(os.urandom(size))

    def send():
        for n in range(1000):
            a.relay(b, payload, seq=n)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for n in range(1000):
        got = b.expect('relay_message', seq=n, from_=a.id)
        assert got['payload'] == payload
    sender.join(10 * SLOW)
    a.alive()


@pytest.mark.sanitize
def test_dig_27_a_reader_that_waits(digd):
    """It reads nothing for a while; whoever sends to it waits, is lost nothing, and is not in the
    way of others."""
    a, c, d = digd.group(3)
    b = digd.peer(net=a.net, rcvbuf=32768)
    payload, count = [255] * 2000, 4500  # 36 MB of JSON, more than queue and sockets hold
    done = []

    def send():
        for n in range(count):
            a.relay(b, payload, seq=n)
        done.append(True)
    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.7)
    for n in range(50):
        c.relay(d, [n])
        assert d.expect('relay_message')['payload'] == [n]
    assert not done
    for n in range(count):
        b.expect('relay_message', seq=n, timeout=20)
    a.alive()


def test_dig_27_the_answers_of_a_slow_reader(digd):
    """Room is kept for what is said to him (§21): pongs for which he does not read come when he
    does, each of them."""
    a, b = digd.group(2)
    for n in range(2000):
        b.say('ping', timestamp=n)
    for n in range(2000):
        b.expect('pong', timestamp=n)
    a.alive()


# ---- 28: lists -----------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_28_get_peers(digd):
    peers = digd.group(9)
    other = digd.peer(net=fresh_net())
    a = peers[4]
    for net in ([], [None], [a.net]):
        got = a.peers(*net)
        assert list(got) == sorted(p.id for p in peers)  # self included
        assert all('addresses' not in peer and peer['network_id'] == a.net for peer in got.values())
    assert a.peers(other.net) == {}  # D8
    assert a.peers('no such network') == {}
    assert list(other.peers()) == [other.id]
    for wrong in ('5', '[]', '{}', 'true', '"x'):
        a.code2('{"type":"get_peers","network_id":%s}' % wrong)


def test_dig_28_sorted_by_bytes(digd):
    """As bytes of UTF-8: not as UTF-16, and not by letters."""
    net = fresh_net()
    names = ['a', 'B', 'b', 'é', '\uffee', '\U0001f600', '', '~', 'aa', 'Ab', '10', '9']
    for name in names:
        digd.peer(net + name, net)
    last = digd.peer(net + 'zz', net)
    assert list(last.peers()) == sorted([net + n for n in names + ['zz']], key=lambda n: n.encode())


def test_dig_28_last_seen_moves(digd):
    """D3: it is the time of the last message; connected_at stays."""
    a, b = digd.group(2)
    first = a.peers()[b.id]
    time.sleep(2.1)
    b.alive()
    after = a.peers()[b.id]
    assert after['connected_at'] == first['connected_at']
    assert 2 <= after['last_seen'] - first['last_seen'] <= 3 * SLOW


def test_dig_28_a_large_network(dig_start):
    """Up to 1024 the whole list; above, a sample of 1024 with oneself, sorted, another each time
    (§21, unbounded peers)."""
    digd = dig_start(max_connections=2000, nofile=8192)
    net = fresh_net()
    source = next_ip()
    conns = []

    def all_registered():
        for conn in conns:
            if conn.ack is None:
                conn.registered()
    for n in range(1100):
        conns.append(digd.ws(source=source).register('id-%04d' % n, net))
        if n % 50 == 0:
            all_registered()
        if n == 1023:
            all_registered()
            assert list(conns[-1].peers()) == ['id-%04d' % i for i in range(1024)]
    all_registered()
    seen = set()
    for me in (conns[3], conns[1099]):
        lists = [list(me.peers()) for _ in range(3)]
        for ids in lists:
            assert len(ids) == len(set(ids)) == 1024 and me.id in ids and ids == sorted(ids)
            seen.update(ids)
        assert lists[0] != lists[1]
    assert len(seen) > 1090


# ---- 29-31: hole punching ------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_29_coordinate(digd):
    a, b, c = digd.group(3)
    a.say('hole_punch_request', peer_id='forged', target_peer_id=b.id,
          external_addr='203.0.113.9:40001')
    assert b.next() == {'type': 'hole_punch_coordinate', 'peer_id': a.id,
                        'external_addr': '203.0.113.9:40001'}
    for peer in (a, b, c):
        peer.alive()
    other = digd.peer()
    for target in (fresh_id(), other.id):
        a.say('hole_punch_request', peer_id=a.id, target_peer_id=target,
              external_addr='203.0.113.9:40001')
        a.error(3)
    other.alive()
    a.say('hole_punch_request', peer_id=a.id, target_peer_id=a.id, external_addr='203.0.113.9:1')
    a.expect('hole_punch_coordinate', peer_id=a.id)


ADDRESSES = {
    '203.0.113.9:1': '203.0.113.9:1', '198.51.100.200:65535': '198.51.100.200:65535',
    '[::FFFF:1.2.3.4]:9': '[::ffff:1.2.3.4]:9', '[::ffff:102:304]:9': '[::ffff:1.2.3.4]:9',
    '[0:0:0:0:0:0:102:304]:9': '[::102:304]:9', '[::1.2.3.4]:9': '[::102:304]:9',
    '[2001:DB8:0:0:1:0:0:1]:5': '[2001:db8::1:0:0:1]:5', '[2001:db8:0:1:1:1:1:1]:5':
    '[2001:db8:0:1:1:1:1:1]:5', '[2001:0db8::0001]:80': '[2001:db8::1]:80',
    '[1:0:0:2:0:0:0:3]:1': '[1:0:0:2::3]:1', '[2001:db8:7::]:9': '[2001:db8:7::]:9',
    '[64:ff9b::1.2.3.4]:1': '[64:ff9b::102:304]:1', '[::2:0:0:0:0:1]:1': '[0:0:2::1]:1',
    '[fe80::1%7]:9': '[fe80::1%7]:9', '[fe80::1%0]:9': '[fe80::1]:9',
}


@pytest.mark.sanitize
def test_dig_30_addresses_printed_anew(digd):
    """Both ends are on loopback, so that every address may be named (D10)."""
    a, b = digd.group(2)
    for given, printed in ADDRESSES.items():
        a.say('hole_punch_request', peer_id='x', target_peer_id=b.id, external_addr=given)
        try:
            b.expect('hole_punch_coordinate', external_addr=printed)
        except AssertionError as e:
            raise AssertionError('%s: %s' % (given, e)) from None


@pytest.mark.sanitize
def test_dig_30_no_addresses(digd):
    a, b = digd.group(2)
    for wrong in ('"host:1"', '"1.2.3.4"', '"1.2.3.4:65536"', '"[::1]"', '"::1:5"', '":5"', '""',
                  '5',
                  'null', '["1.2.3.4:5"]', '"1.2.3.4:5x"', '"1.2.3:5"', '"1.2.3.4:"',
                  '"[1.2.3.4]:5"',
                  '"[::1%lo]:5"', '"[::1%4294967296]:5"', '"1.2.3.04:5"', '" 1.2.3.4:5"',
                  '"[::12345]:5"',
                  '"%s:5"' % ('1' * 5000)):
        a.code2('{"type":"hole_punch_request","peer_id":"x","target_peer_id":"%s",'
                '"external_addr":%s}' % (b.id, wrong))
    for text in ('{"type":"hole_punch_request","peer_id":"x","target_peer_id":"y"}',
                 '{"type":"hole_punch_request","peer_id":"x","external_addr":"1.2.3.4:5"}',
                 '{"type":"hole_punch_request","target_peer_id":"y","external_addr":"1.2.3.4:5"}'):
        a.code2(text)
    b.alive()


@pytest.mark.sanitize
def test_dig_31_result(digd):
    """Its peer_id names whom it is for, and stays (§5.9)."""
    a, b = digd.group(2)
    other = digd.peer()
    for success in (True, False):
        a.say('hole_punch_result', peer_id=b.id, success=success)
        assert b.next() == {'type': 'hole_punch_result', 'peer_id': b.id, 'success': success}
    for target in (fresh_id(), other.id):
        a.say('hole_punch_result', peer_id=target, success=True)
        a.error(3)
    for wrong in ('1', '"true"', 'null'):
        a.code2('{"type":"hole_punch_result","peer_id":"%s","success":%s}' % (b.id, wrong))
    a.code2('{"type":"hole_punch_result","peer_id":"%s"}' % b.id)
    for peer in (a, b, other):
        peer.alive()


def punch(a, b, addr='203.0.113.9:40001'):
    a.say('hole_punch_request', peer_id='x', target_peer_id=b.id, external_addr=addr)


@pytest.mark.sanitize
def test_dig_d10_coordinates_are_limited(digd):
    """16 at once, by requester and by target, then one in half a second; what is more is dropped."""
    a, b, c = digd.group(3)
    for requester in (a, c):
        for _ in range(40):
            punch(requester, b)
        requester.alive()
    a.relay(b, [1])
    c.relay(b, [2])
    said = []
    while sum(m['type'] == 'relay_message' for m in said) < 2:
        said.append(b.next())
    assert 16 <= len(said) - 2 <= 16 + 4 * SLOW
    d = digd.peer(net=a.net)
    punch(a, d)  # the requester's own are used up, too
    a.alive()
    a.relay(d, [3])
    assert d.next()['type'] == 'relay_message'


@pytest.mark.sanitize
def test_dig_d10_nobody_is_pointed_at(dig_start):
    """By peers that are elsewhere: no port 0, no loopback, unspecified or multicast address."""
    digd = dig_start(env={'DIG_RELAY_TRUSTED_PROXY_CIDRS': '127.0.0.1'})
    prelude = b'\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c' + bytes([203, 0, 113, 7, 192, 0, 2, 1, 0, 9, 0, 9])
    a = digd.peer(source='127.0.0.1', prelude=prelude)
    b = digd.peer(net=a.net)
    for addr in ('127.0.0.1:5', '[::1]:5', '0.0.0.0:5', '[::]:5', '224.0.0.1:5', '[ff02::1]:5',
                 '203.0.113.7:0', '[::ffff:127.0.0.1]:5'):
        punch(a, b, addr)
        a.alive()
        b.alive()
    punch(a, b, '198.51.100.1:5')
    b.expect('hole_punch_coordinate', external_addr='198.51.100.1:5')


def test_dig_d10_strict(dig_start):
    """Then nothing but the observed address."""
    digd = dig_start('--dig-punch-strict')
    a = digd.peer(source='127.0.0.9')
    b = digd.peer(net=a.net)
    for addr in ('203.0.113.9:5', '127.0.0.8:5'):
        punch(a, b, addr)
        a.alive()
        b.alive()
    punch(a, b, '127.0.0.9:40001')
    b.expect('hole_punch_coordinate', external_addr='127.0.0.9:40001')


def test_dig_d8_d9_as_one_likes(dig_start):
    """Lists of other networks, and ids that are nothing but hex."""
    digd = dig_start('--dig-foreign-lists', '--dig-hex-ids')
    a, b = digd.peer(), digd.peer()
    assert list(a.peers(b.net)) == [b.id] and list(a.peers()) == [a.id]
    conn = digd.ws()
    for name in ('peerA', a.id.upper(), a.id + '0', ''):
        conn.say('register', peer_id=name, network_id=a.net, protocol_version=1)
        conn.error(2)
    conn.register(net=a.net).registered()


# ---- 32: what only a relay says ------------------------------------------------------------------

PEER = {'peer_id': 'x', 'network_id': 'n', 'protocol_version': 1, 'connected_at': 1, 'last_seen': 2}


@pytest.mark.sanitize
def test_dig_32_said_by_a_client(digd):
    a, b = digd.group(2)
    for quiet in ({'type': 'peers', 'peers': []}, {'type': 'peers', 'peers': [PEER]},
                  {'type': 'peers', 'peers': [dict(PEER, addresses=['1.2.3.4:5'])]},
                  {'type': 'error', 'code': 4, 'message': 'full'},
                  {'type': 'register_ack', 'success': False, 'message': 'x', 'connected_peers': 1},
                  {'type': 'pong', 'timestamp': 1}, {'type': 'peer_connected', 'peer': PEER},
                  {'type': 'peer_disconnected', 'peer_id': b.id},
                  {'type': 'hole_punch_coordinate', 'peer_id': b.id, 'external_addr': '1.2.3.4:5'}):
        a.text(written(quiet))
        a.alive()
    for text in ('{"type":"peers"}', '{"type":"peers","peers":null}', '{"type":"peers","peers":{}}',
                 '{"type":"error","code":4}', '{"type":"error","code":4294967296,"message":"x"}',
                 '{"type":"register_ack","success":"yes","message":"x","connected_peers":1}',
                 '{"type":"pong"}', '{"type":"peer_connected"}',
                 '{"type":"peer_connected","peer":5}',
                 '{"type":"peer_disconnected"}', '{"type":"hole_punch_coordinate","peer_id":"x"}',
                 '{"type":"sealed","envelope":[]}', '{"type":"relay_hello","descriptor":{}}',
                 '{"type":"mesh_hello"}', '{"type":"get_dht_records","max_keys":500}',
                 '{"type":"get_dht_records"}'):
        a.code2(text)
    b.alive()


# ---- 33, 34: addresses ---------------------------------------------------------------------------

LISTEN = ['[::]:9444', '192.168.1.5:9444', '8.8.8.8:9446']


def published(digd, addrs, **options):
    """As the peer itself and another see it, which must be the same."""
    watch = digd.peer(net=options.pop('net', None), at=options.get('at'))
    peer = digd.peer(net=watch.net, listen_addrs=addrs, **options)
    told = watch.told('peer_connected', peer.id)['peer'].get('addresses')
    assert watch.peers()[peer.id].get('addresses') == told == peer.peers()[peer.id].get('addresses')
    return told


@pytest.mark.sanitize
def test_dig_33_from_127_0_0_1(digd):
    assert published(digd, LISTEN, source='127.0.0.1') == ['127.0.0.1:9444', '127.0.0.1:9446']
    ten = ['0.0.0.0:%d' % port for port in range(1000, 1010)]
    assert published(digd, ten, source='127.0.0.1') == ['127.0.0.1:%d' % p for p in range(1000,
                                                                                          1008)]
    assert published(digd, ten[:3] * 5 + ten, source='127.0.0.1') == [
        '127.0.0.1:%d' % p for p in range(1000, 1008)]
    assert published(digd, [], source='127.0.0.1') is None
    assert published(digd, ['1.2.3.4:0', '[::]:0'], source='127.0.0.1') is None  # D10
    assert published(digd, ['1.2.3.4:0', '[::]:7'], source='127.0.0.1') == ['127.0.0.1:7']
    assert published(digd, ['0.0.0.0:%d' % (1 + i) for i in range(5000)], source='127.0.0.1') == [
        '127.0.0.1:%d' % p for p in range(1, 9)]


@pytest.mark.sanitize
def test_dig_33_on_a_dual_stack_listener(dig_start):
    """D2: never [::ffff:127.0.0.1]; and §20's 34, from ::1."""
    digd = dig_start(host='[::]')
    assert digd.doors['dig'][0] == '::'
    at = ('127.0.0.1', digd.at[1])
    assert published(digd, LISTEN, source='127.0.0.1', at=at) == ['127.0.0.1:9444',
                                                                  '127.0.0.1:9446']
    assert published(digd, ['[::ffff:127.0.0.1]:5', '127.0.0.1:5'], source='127.0.0.1', at=at) == [
        '127.0.0.1:5']
    assert published(digd, ['1.2.3.4:55']) == ['[::1]:55']
    assert published(digd, LISTEN) == ['[::1]:9444', '[::1]:9446']


def test_dig_34_from_ipv6(dig_start):
    digd = dig_start(host='[::1]')
    assert published(digd, ['1.2.3.4:55']) == ['[::1]:55']
    assert published(digd, ['[2001:db8::1]:55', '[::]:56', '10.0.0.1:55']) == ['[::1]:55',
                                                                               '[::1]:56']
