"""dig.md §20, checks 11-20: registration (§6), who may and who may not, and what is said about
it."""

import time

import pytest

from dig import PING, Ended, Silence, frame, fresh_id, fresh_net, request, written
from relay import SLOW, next_ip


# ---- 11, 12: the first things said ---------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_11_acks_and_presence(dig_start):
    digd = dig_start()
    net = fresh_net()
    a = digd.peer(net=net)
    assert a.ack == {'type': 'register_ack', 'success': True, 'message': 'registered',
                     'connected_peers': 1}
    now = time.time()
    b = digd.peer(net=net, version=7)
    assert b.ack['connected_peers'] == 2
    peer = a.told('peer_connected', b.id)['peer']
    assert peer == {'peer_id': b.id, 'network_id': net, 'protocol_version': 7,
                    'connected_at': peer['connected_at'], 'last_seen': peer['last_seen']}
    assert abs(peer['connected_at'] - now) <= 2 and abs(peer['last_seen'] - now) <= 2
    assert b.alive().peers().keys() == {a.id, b.id}
    assert not b.pushed and not a.alive().pushed
    c = digd.peer()  # of another network, and counted in the same number
    assert c.ack['connected_peers'] == 3
    time.sleep(0.1)
    assert not a.alive().pushed and not b.alive().pushed and not c.alive().pushed


@pytest.mark.parametrize('version', [0, 1, 2, 4294967295])
def test_dig_11_versions_are_not_judged(digd, version):
    a = digd.peer()
    b = digd.peer(net=a.net, version=version)
    assert a.told('peer_connected', b.id)['peer']['protocol_version'] == version
    assert b.peers()[b.id]['protocol_version'] == version


@pytest.mark.parametrize('peer_id', ['peerA', '4F1D', 'ß-é-😀', 'a' * 128, '"\\/', "<b>&'"])
def test_dig_11_ids_are_opaque(digd, peer_id):
    """Up to 128 bytes without control characters (D9); networks too."""
    a = digd.peer()
    name = fresh_net()[-8:] + peer_id if len(peer_id) < 100 else peer_id
    b = digd.peer(peer_id=name, net=a.net)
    a.told('peer_connected', name)
    a.relay(name, [1])
    assert b.expect('relay_message')['to'] == name
    c = digd.peer(net=name)
    assert c.peers()[c.id]['network_id'] == name


@pytest.mark.sanitize
def test_dig_11_ids_are_bounded(digd):
    """D9: longer ones and control characters are code 2, of which nothing is echoed."""
    conn = digd.ws()
    for bad in ('a' * 129, 'é' * 65, 'a' * 100000, 'a\u0000b', 'a\nb', '\u001b[2J', 'a\u007f',
                'a\r'):
        for peer_id, net in ((bad, fresh_net()), (fresh_id(), bad)):
            conn.say('register', peer_id=peer_id, network_id=net, protocol_version=1)
            conn.error(2)
    conn.register().registered()


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_12_get_peers_without_waiting(digd):
    """As the reservation client does (dig.md §18): in one segment, twenty times."""
    net = fresh_net()
    for n in range(1, 21):
        conn = digd.ws()
        conn.id = fresh_id()
        conn.send(b''.join(frame(1, written(m).encode()) for m in (
            {'type': 'register', 'peer_id': conn.id, 'network_id': net, 'protocol_version': 1,
             'listen_addrs': ['[::]:9444']}, {'type': 'get_peers', 'network_id': net})))
        conn.registered()
        peers = conn.expect('peers')['peers']
        assert conn.id in [p['peer_id'] for p in peers] and len(peers) == n
        assert not conn.pushed


# ---- 13: before ----------------------------------------------------------------------------------

VALID = [
    {'type': 'unregister', 'peer_id': 'x'},
    {'type': 'relay_message', 'from': 'x', 'to': 'y', 'payload': [1], 'seq': 1},
    {'type': 'broadcast', 'from': 'x', 'payload': [1], 'exclude': []},
    {'type': 'get_peers'}, {'type': 'get_peers', 'network_id': None},
    {'type': 'get_peers', 'network_id': 'DIG_MAINNET'},
    {'type': 'ping', 'timestamp': 5}, {'type': 'pong', 'timestamp': 5},
    {'type': 'hole_punch_request', 'peer_id': 'x', 'target_peer_id': 'y',
     'external_addr': '203.0.113.9:1'},
    {'type': 'hole_punch_coordinate', 'peer_id': 'x', 'external_addr': '203.0.113.9:1'},
    {'type': 'hole_punch_result', 'peer_id': 'x', 'success': True},
    {'type': 'register_ack', 'success': True, 'message': 'registered', 'connected_peers': 1},
    {'type': 'peers', 'peers': []},
    {'type': 'peer_disconnected', 'peer_id': 'x'}, {'type': 'error', 'code': 1, 'message': 'x'},
    {'type': 'dht_records', 'records': [], 'total_keys': 0, 'truncated': False},
    {'type': 'pex_handshake', 'version': 1, 'network_id': 'x', 'interval': 60, 'flags': []},
    {'type': 'pex_snapshot', 'peers': []}, {'type': 'pex_snapshot'}, {'type': 'pex_'},
    {'type': 'pex_bogus', 'peers': 5},
]


@pytest.mark.sanitize
def test_dig_13_before_register(digd):
    """Whatever else is well-formed, get_peers too (D7), and every pex_ frame: code 1."""
    conn = digd.ws()
    for message in VALID:
        conn.text(written(message))
        try:
            conn.error(1)
        except AssertionError as e:
            raise AssertionError('%s: %s' % (message, e)) from None
    for text in ('{"type":"ping"}', '{"type":"sealed","envelope":[]}', 'x', '{"type":"nothing"}'):
        conn.code2(text)
    conn.register().registered().alive()


# ---- 14, 15: one id, one connection --------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('other', [False, True], ids=['same network', 'other network'])
def test_dig_14_the_incumbent_stays(digd, other):
    a, b = digd.group(2)
    for _ in range(4):  # wherever its connection lands
        late = digd.ws().register(a.id, fresh_net() if other else a.net)
        assert late.refused(5)['message'] != 'registered'
    b.relay(a, [1, 2])
    a.expect('relay_message', payload=[1, 2], from_=b.id)
    a.alive()
    assert not b.alive().pushed
    assert b.peers().keys() == {a.id, b.id}


@pytest.mark.sanitize
@pytest.mark.parametrize('how', ['close', 'reset', 'fin', 'unregister'])
def test_dig_15_the_id_is_free_again(dig_start, how):
    digd = dig_start()
    a, b = digd.group(2)
    if how == 'close':
        a.leave()
    elif how == 'unregister':
        a.say('unregister', peer_id='whatever')
        a.closing()
    else:
        if how == 'reset':
            a.raw.setsockopt(1, 13, b'\1\0\0\0\0\0\0\0')  # SO_LINGER of 0 s
        a.close()
    b.told('peer_disconnected', a.id)
    again = digd.peer(a.id, a.net)
    assert again.ack['connected_peers'] == 2
    b.told('peer_connected', a.id)
    b.relay(a.id, [3])
    again.expect('relay_message', payload=[3])
    assert list(b.peers()) == sorted([a.id, b.id])


def test_dig_15_a_silent_incumbent_is_looked_for(digd):
    """§21, reconnect lock-out: who does not read is probed when his id comes again, so that a retry
    succeeds within seconds; one who reads keeps it (check 14)."""
    a = digd.peer()
    began = time.monotonic()
    while time.monotonic() - began < 20 * SLOW:
        late = digd.ws().register(a.id, a.net)
        said = late.next()
        if said['success']:
            break
        late.closing()
        time.sleep(0.5)
    else:
        raise AssertionError('a connection that answers nothing keeps its id')
    assert time.monotonic() - began > 2
    late.ack = said
    late.alive()
    a.closing()


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_15_again_and_again(digd):
    """D11: the same id once more is a refresh; another one leaves the old behind."""
    a, b = digd.group(2)
    a.register(a.id, a.net, version=2)
    a.registered()
    assert not b.alive().pushed or b.pushed[0]['type'] == 'peer_connected'
    assert b.peers().keys() == {a.id, b.id}
    old = a.id
    a.register(net=a.net)
    a.registered()
    b.told('peer_disconnected', old)
    b.told('peer_connected', a.id)
    assert b.peers().keys() == {a.id, b.id}
    b.relay(old, [1])
    b.error(3)
    b.relay(a, [2])
    a.expect('relay_message', payload=[2])
    other = digd.peer()
    a.register(net=other.net)  # and to another network
    a.registered()
    other.told('peer_connected', a.id)
    assert list(b.peers()) == [b.id]
    assert other.peers().keys() == {a.id, other.id}
    a.close()
    other.told('peer_disconnected', a.id)


# ---- 16: what is no register ---------------------------------------------------------------------

GOOD = '{"type":"register","peer_id":"%s","network_id":"n","protocol_version":1%s}'
BAD = [
    '{"type":"register","peer_id":"x","protocol_version":1}',
    '{"type":"register","network_id":"n","protocol_version":1}',
    '{"type":"register","peer_id":"x","network_id":"n"}',
    '{"type":"register"}', '{"type":"register","peer_id":5,"network_id":"n","protocol_version":1}',
    '{"type":"register","peer_id":"x","network_id":null,"protocol_version":1}',
    '{"type":"register","peer_id":"x","network_id":"n","protocol_version":"1"}',
    '{"type":"register","peer_id":"x","network_id":"n","protocol_version":4294967296}',
    '{"type":"register","peer_id":"x","network_id":"n","protocol_version":-1}',
    '{"type":"register","peer_id":"x","network_id":"n","protocol_version":1.0}',
    '{"type":"register","peer_id":"x","network_id":"n","protocol_version":null}',
    '{"type":"register","peer_id":"x","peer_id":"x","network_id":"n","protocol_version":1}',
] + [GOOD % ('x', ',"listen_addrs":' + addrs) for addrs in (
    'null', '"a"', '[1]', '["x"]', '{}', '5', '[null]', '[[]]', '["1.2.3.4"]', '["1.2.3.4:"]',
    '["1.2.3.4:65536"]', '["1.2.3:5"]', '["1.2.3.4.5:5"]', '["256.1.1.1:5"]', '["::1:5"]',
    '["[::1]"]', '["[::1:5"]', '["[1.2.3.4]:5"]', '["[::g]:5"]', '["host:5"]', '[":5"]',
    '["1.2.3.4:5 "]', '[" 1.2.3.4:5"]', '["1.2.3.4:-5"]', '["1.2.3.4:+5"]', '["01.2.3.4:5"]',
    '["[::1]:5","x"]', '["[1::2::3]:5"]', '["[1:2:3:4:5:6:7:8:9]:5"]', '["[::1%eth0]:5"]')]


@pytest.mark.sanitize
def test_dig_16_no_register(digd):
    conn = digd.ws()
    for text in BAD:
        try:
            conn.code2(text)
        except AssertionError as e:
            raise AssertionError('%s: %s' % (text, e)) from None
    conn.register().registered()


@pytest.mark.parametrize('addrs', ['[]', '["1.2.3.4:0"]', '["0.0.0.0:65535"]', '["[::]:9444"]',
                                   '["[fe80::1%3]:9444"]', '["[::ffff:1.2.3.4]:1"]',
                                   '["[1:2:3:4:5:6:7:8]:1"]', '["[1:2:3:4:5:6:1.2.3.4]:1"]'])
def test_dig_16_addresses_that_are_fine(digd, addrs):
    conn = digd.ws()
    conn.text(GOOD % (fresh_id(), ',"listen_addrs":' + addrs))
    conn.registered()


# ---- 17: a full relay ----------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['idle', 'upgraded', 'registered'])
def test_dig_17_the_cap_of_connections(dig_start, kind):
    """Every open connection counts, plain HTTP too, and who is one too many gets no byte."""
    digd = dig_start(max_connections=2, max_connections_per_ip=0)
    make = {'idle': digd.tcp, 'upgraded': digd.ws, 'registered': digd.peer}[kind]
    first = make()
    second = make()
    if kind == 'idle':
        time.sleep(0.1 * SLOW)  # accepted, as far as anybody can see
    for raw in (request(), b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n', b''):
        third = digd.tcp()
        try:
            third.send(raw)
        except OSError:
            pass
        third.gone()
    assert digd.fetch('/health', door='health-listen')[0] == 200
    second.close()
    came = None
    for _ in range(100):  # until the end of the second was seen
        came = digd.tcp()
        try:
            came.upgrade()
            break
        except (Ended, OSError):
            time.sleep(0.05)
    came.register().registered()
    if kind == 'registered':
        first.alive()


def test_dig_17_code_4(dig_start):
    """As many registrants as connections: only ghosts could be more, so the count is exact."""
    digd = dig_start(max_connections=3)
    peers = [digd.peer() for _ in range(3)]
    assert [p.ack['connected_peers'] for p in peers] == [1, 2, 3]
    for p in peers:
        p.alive()


# ---- 18: the register timeout --------------------------------------------------------------------

JUNK = {'nothing': (b'', b''), 'text': (b'', frame(1, b'junk')), 'ping': (b'', frame(PING, b'x')),
        'code 1': (b'', frame(1, b'{"type":"ping","timestamp":1}')),
        'fragments': (frame(1, b'{', fin=False), frame(0, b' ', fin=False)),
        'half a frame': (frame(1, b'{"type":"register"')[:12], b''),
        'drips': (frame(2, b'', length=1000), b' ')}


@pytest.mark.sanitize
def test_dig_18_two_seconds_in_all(dig_start):
    """D5: nothing restarts it."""
    digd = dig_start(register_timeout_secs=2)
    began = time.monotonic()
    conns = {junk: digd.ws() for junk in JUNK}
    for junk, conn in conns.items():
        conn.send(JUNK[junk][0])
    while time.monotonic() - began < 1.6:
        for junk, conn in conns.items():
            conn.send(JUNK[junk][1])
        time.sleep(0.15)
    for junk, conn in conns.items():
        assert not conn.has_ended() or time.monotonic() - began > 1.95, junk
    for junk, conn in conns.items():
        said, _ = conn.closing(timeout=5 * SLOW)
        assert time.monotonic() - began < 3.5 * SLOW, junk
        assert all(m['type'] == 'error' for m in said), (junk, said)


def test_dig_18_ten_seconds(dig_start):
    """The default; who registers within it is served on, and no limit is left behind."""
    digd = dig_start(loose=False)
    slow, late = digd.ws(), digd.ws()
    began = time.monotonic()
    time.sleep(9)
    late.register().registered()
    assert slow.closing(timeout=5)[0] == []
    assert 9.5 < time.monotonic() - began < 12 * SLOW
    with pytest.raises(Silence):
        late.next(timeout=1.5)
    late.alive()


# ---- 19: unregister ------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_19_unregister(digd):
    a, b, c = digd.group(3)
    for text in ('{"type":"unregister"}', '{"type":"unregister","peer_id":5}',
                 '{"type":"unregister","peer_id":null}'):
        a.code2(text)
    a.say('unregister', peer_id=b.id)  # whatever it says, it means this connection
    assert a.closing()[0] == []
    for other in (b, c):
        other.told('peer_disconnected', a.id)
        assert other.alive().peers().keys() == {b.id, c.id}


# ---- 20: refused for its rate --------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_20_registrations_of_a_source(dig_start):
    digd = dig_start(registrations_per_ip_per_sec=2)
    source = next_ip()
    conns = [digd.ws(source=source) for _ in range(4)]
    for conn in conns:
        conn.register()
    acks = {conn: conn.next() for conn in conns}  # on two shards: which are first is not said
    good = [conn for conn in conns if acks[conn]['success']]
    assert len(good) == 2 and all(ack['type'] == 'register_ack' for ack in acks.values())
    for conn in conns:
        if conn not in good:
            conn.error(7)
            assert conn.closing()[0] == []
    digd.peer()  # another source
    time.sleep(1.1)
    digd.peer(source=source)
    for conn in good:
        conn.alive()


def test_dig_20_attempts_count(dig_start):
    """One that is refused for another reason is an attempt too."""
    digd = dig_start(registrations_per_ip_per_sec=2)
    a = digd.peer()
    source = next_ip()
    conns = [digd.ws(source=source) for _ in range(3)]
    conns[0].register(a.id, a.net).refused(5)
    conns[1].register(a.id, a.net).refused(5)
    conns[2].register().refused(7)


def test_dig_20_registrations_at_once(dig_start):
    """--max-registrations-per-ip; ends give back what they took."""
    digd = dig_start(max_registrations_per_ip=3)
    source = next_ip()
    peers = [digd.peer(source=source) for _ in range(3)]
    digd.ws(source=source).register().refused(7)
    digd.peer(source=next_ip())
    watch = digd.peer(net=peers[0].net)
    peers[0].close()
    watch.told('peer_disconnected', peers[0].id)
    again = digd.peer(source=source)
    digd.ws(source=source).register().refused(7)
    for _ in range(5):
        again.register(net=again.net)  # takes the place of its own
        again.registered()
    digd.ws(source=source).register().refused(7)
