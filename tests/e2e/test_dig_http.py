"""dig.md §20, checks 53, 54, 55 and 57: what the doors say over HTTP (§15)."""

import json
import re
import time

import pytest

from dig import Conn, Ended
from relay import SLOW
from turnd import Clock

HTML = '/', '/map', '/dht'
HEALTH = ['status', 'connected_peers', 'uptime_secs', 'version']
STATS = ('schema_version status version uptime_secs active_reservations connected_peers '
         'open_connections stun_requests hole_punch_requests hole_punch_successes '
         'hole_punch_failures bytes_relayed networks peers').split()
PEER = 'peer_id network_id via address_family protocol_version connected_at connected_secs'.split()


# ---- 53: health ----------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('door', ['listen', 'health-listen'])
def test_dig_53_health(dig_start, door):
    digd = dig_start()
    peers = digd.group(3)
    got = digd.json('/health', door=door)
    assert sorted(got) == sorted(HEALTH)
    if door == 'health-listen':
        assert list(got) == HEALTH
    assert got['status'] == 'ok' and got['connected_peers'] == 3
    assert type(got['uptime_secs']) is int and 0 <= got['uptime_secs'] < 60
    assert re.fullmatch(r'\d+\.\d+\.\d+\S*', got['version'])
    status, fields, body = digd.fetch('/health', door=door)
    assert b' ' not in body and status == 200
    if door == 'listen':
        assert fields['cache-control'] == 'no-store'
    peers[0].close()
    digd.settle(lambda: digd.json('/health', door=door)['connected_peers'] == 2)


@pytest.mark.sanitize
def test_dig_53_health_port(digd):
    """404 and 405 with empty bodies, HEAD without one, HTTP/1.0, a connection that is kept."""
    door = 'health-listen'
    status, fields, body = digd.fetch('/health', door=door, method='HEAD')
    assert status == 200 and body == b'' and fields['content-type'] == 'application/json'
    assert int(fields['content-length']) > 50
    for method in ('POST', 'PUT', 'DELETE', 'OPTIONS'):
        status, fields, body = digd.fetch('/health', door=door, method=method)
        assert status == 405 and body == b'' and fields['allow'].replace(' ', '') == 'GET,HEAD'
    for path in ('/', '/Health', '/health/', '/stats.json', '/metrics', '/healthz'):
        status, fields, body = digd.fetch(path, door=door)
        assert status == 404 and body == b'', (path, status, body)
    assert digd.fetch('/health?x=1', door=door)[0] == 200
    status, fields, body = digd.fetch(raw=b'GET /health HTTP/1.0\r\n\r\n', door=door)
    assert status == 200 and sorted(json.loads(body)) == sorted(HEALTH)
    with Conn(digd.door(door)) as conn:
        for _ in range(3):
            conn.send(b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
            try:
                status, fields = conn.head()
            except Ended:
                break  # "keep-alive allowed"
            assert status.split()[1] == '200'
            conn.take(int(dict(fields)['content-length']), conn.until())


# ---- 53, 54: statistics --------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_53_stats(dig_start):
    digd = dig_start()
    before = time.time()
    nets = ['m-net', 'A-net', 'z-net']
    peers = []
    for net in nets:
        peers += [digd.peer(net=net) for _ in range(2)]
    direct = digd.peer('dd' * 32, nets[0], source='127.0.0.1', listen_addrs=['[::]:9444'])
    short = digd.peer('short-id', nets[0], version=9)
    twelve = digd.peer('x' * 12, nets[0])
    peers += [direct, short, twelve]
    stats = digd.json('/stats.json')
    assert list(stats) == STATS
    assert stats['schema_version'] == 1 and stats['status'] == 'ok'
    assert stats['active_reservations'] == stats['connected_peers'] == 9
    assert stats['open_connections'] == 10  # this request among them
    assert stats['networks'] == [{'network_id': 'A-net', 'peers': 2},
                                 {'network_id': 'm-net', 'peers': 5},
                                 {'network_id': 'z-net', 'peers': 2}]
    shown = [p['peer_id'] for p in stats['peers']]
    assert shown == sorted(shown, key=lambda s: s.encode())
    assert sorted(shown) == sorted(
        p.id if len(p.id) <= 12 else p.id[:12] + '\u2026' for p in peers)
    for peer in stats['peers']:
        assert list(peer) == PEER
        assert before - 2 < peer['connected_at'] < time.time() + 2
        assert peer['connected_secs'] in range(20)
    by_id = {p['peer_id']: p for p in stats['peers']}
    assert by_id['d' * 12 + '\u2026']['via'] == 'direct'
    assert by_id['d' * 12 + '\u2026']['address_family'] == 'v4'
    assert (by_id['short-id']['via'], by_id['short-id']['address_family']) == ('relay', 'none')
    assert by_id['short-id']['protocol_version'] == 9
    for query in ('?full=1', '?full=true', '?full=yes', '?x&full=1', '?afull=1'):
        shown = [p['peer_id'] for p in digd.json('/stats.json' + query)['peers']]
        assert shown == sorted(p.id for p in peers), query
    for query in ('?full=0', '?full', '?FULL=1', '?full=no'):
        assert '\u2026' in ''.join(p['peer_id'] for p in digd.json('/stats.json' + query)['peers'])
    status, fields, body = digd.fetch('/stats.json')
    assert fields['cache-control'] == 'no-store' and fields['connection'].lower() == 'close'
    assert not re.search(rb'127\.\d+\.\d+\.\d+', body), 'an address'


@pytest.mark.sanitize
def test_dig_53_counters(dig_start):
    """Each payload once, however many get it; what an unregistered connection says is not counted
    (D12)."""
    digd = dig_start()
    a, b, c = digd.group(3)
    stranger = digd.ws()
    for conn in (a, stranger):
        conn.relay(b, [1, 2, 3])
        conn.say('broadcast', from_='x', payload=[4, 5], exclude=[])
        conn.say('hole_punch_request', peer_id='x', target_peer_id=b.id, external_addr='1.2.3.4:5')
        conn.say('hole_punch_result', peer_id=b.id, success=True)
        conn.say('hole_punch_result', peer_id=b.id, success=False)
        conn.say('hole_punch_result', peer_id=c.id, success=False)
    for _ in range(6):
        stranger.error(1)
    for kind in ('relay_message', 'broadcast', 'hole_punch_coordinate', 'hole_punch_result'):
        b.expect(kind)
    c.expect('broadcast')
    c.expect('hole_punch_result')
    a.alive()
    digd.stun(b'\0\1\0\0\x21\x12\xa4\x42' + bytes(12))

    def counted():
        s = digd.json('/stats.json')
        return [s[name] for name in STATS[7:12]]
    digd.settle(lambda: counted() == [1, 1, 1, 2, 5])


@pytest.mark.sanitize
def test_dig_54_ids_of_many_bytes(dig_start):
    """D6: cut on a character's border, never in it."""
    digd = dig_start()
    names = ['aaaaaaaaaaaé' + 'b' * 9, 'é' * 30, '€€€€€', '😀' * 12, 'ééé' + 'x' * 6, '"' * 20,
             '<b>\\' * 8]
    for name in names:
        digd.peer(name)
    for path in HTML + ('/stats.json', '/health', '/map.json', '/dht.json'):
        assert digd.fetch(path)[0] == 200, path
    shown = [p['peer_id'] for p in digd.json('/stats.json')['peers']]
    assert shown == sorted(shown, key=lambda s: s.encode())
    for name in names:
        cut = [s for s in shown if s == name or s.endswith('\u2026') and name.startswith(s[:-1])]
        assert cut, (name, shown)
        assert len(cut[0].encode()) >= 10, (name, shown)


@pytest.mark.sanitize
def test_dig_53_pages(digd):
    """Any method; paths to the letter; one answer and the end."""
    html = 'text/html; charset=utf-8'
    for path in HTML + ('/stats.json', '/map.json', '/dht.json', '/health'):
        kind = html if path in HTML else 'application/json'
        for method in ('GET', 'POST', 'DELETE', 'BREW'):
            for query in ('', '?a=b'):
                status, fields, body = digd.fetch(path + query, method=method)
                assert status == 200 and fields['content-type'] == kind, (path, method, status,
                                                                          fields)
                assert fields['connection'].lower() == 'close'
                assert int(fields['content-length']) == len(body) > 0
                if kind == 'application/json':
                    assert fields['cache-control'] == 'no-store'
    for path in ('/Health', '/stats', '/stats.json/', '/map/', '//', '/../etc/passwd', '/%68ealth',
                 '*'):
        status, fields, body = digd.fetch(path)
        assert (status, body) == (404, b'not found\n') or status == 400, (path, status, body)
        if status == 404:
            assert fields['content-type'] == 'text/plain; charset=utf-8'
    for path in ('/mascot.png', '/map/globe.gl.min.js', '/map/earth.jpg'):
        assert digd.fetch(path)[0] in (200, 404)


def test_dig_53_map(dig_start):
    """Without a database nobody is placed; and nobody's address or id is shown."""
    digd = dig_start(env={'DIG_RELAY_GEOIP_DB': '/nonexistent'})
    digd.peer(listen_addrs=['[::]:1'])
    digd.peer()
    got = digd.json('/map.json')
    assert list(got) == ['schema_version', 'generated_at', 'cell_deg', 'total_peers',
                         'located_peers',
                         'unknown_peers', 'cells']
    assert abs(got.pop('generated_at') - time.time()) < 5
    assert got == {'schema_version': 1, 'cell_deg': 5.0, 'total_peers': 2, 'located_peers': 0,
                   'unknown_peers': 2, 'cells': []}
    assert b'"cell_deg":5.0' in digd.fetch('/map.json')[2]


# ---- 55: the redirect --------------------------------------------------

@pytest.mark.sanitize
def test_dig_55_redirect(digd):
    def location(raw):
        status, fields, body = digd.fetch(raw=raw, door='dashboard-listen')
        assert status == 301 and body == b'', (status, body)
        return fields['location']
    for host in (b'ex.org:81', b'ex.org', b'[::1]:8080', b'[::1]', b'10.0.0.1:80'):
        raw = b'GET /a?b=1 HTTP/1.1\r\nHost: %s\r\n\r\n' % host
        assert location(raw) == 'https://%s/a?b=1' % host.decode()
    assert location(b'GET /a HTTP/1.1\r\n\r\n') == 'https://relay.dig.net/a'
    assert location(b'POST /a HTTP/1.0\r\n\r\n') == 'https://relay.dig.net/a'
    for raw in (b'\r\n\r\n', b'x' * 16385, b'\xff\xfe\r\n\r\n'):
        with Conn(digd.door('dashboard-listen')) as conn:
            try:
                conn.send(raw)
                conn.gone()
            except OSError:
                pass
    # nothing of what was asked can end the header it is put into
    for raw in (b'GET /a\rX:y HTTP/1.1\r\nHost: h\r\n\r\n',
                b'GET /a HTTP/1.1\r\nHost: a\rb\r\n\r\n',
                b'GET /a HTTP/1.1\r\nHost: a b\nX: y\r\n\r\n'):
        with Conn(digd.door('dashboard-listen')) as conn:
            conn.send(raw)
            try:
                status, fields = conn.head()
                assert not re.search(r'[\r\n]', dict(fields).get('location', '')), fields
                assert 'x' not in dict(fields), fields
            except (Ended, ConnectionError):
                pass


# ---- 57: DHT records -----------------------------------------------------------------------------

def answer(conn, records, total=None, truncated=False):
    conn.say('dht_records', records=[{'content_key': k, 'providers': n} for k, n in records],
             total_keys=len(records) if total is None else total, truncated=truncated)


@pytest.mark.sanitize
def test_dig_57_dht(dig_start):
    """Asked at the start; 5 s later the view is built of what came. Answers that nobody asked for
    are taken, one of each connection, of keys that are keys (D13)."""
    began = time.monotonic()
    digd = dig_start()
    a, b, c, d = digd.group(4)
    key, other, third = 'ab' * 32, 'cd' * 32, '01' * 32
    answer(a, [(key, 4), ('<b>' + 'x' * 61, 9), (other, 1), ('', 7), ('ab' * 31, 3)])
    answer(a, [(third, 99)])  # a second vote
    answer(b, [(key, 3), (other, 1)])
    answer(c, [('%064x' % n, 1) for n in range(600)], truncated=False)  # more than 500
    for text in ('{"type":"dht_records"}', '{"type":"dht_records","records":[],"total_keys":0}',
                 '{"type":"dht_records","records":[{"content_key":"x"}],"total_keys":0,'
                 '"truncated":false}',
                 '{"type":"dht_records","records":[{"content_key":5,"providers":1}],"total_keys":0,'
                 '"truncated":false}',
                 '{"type":"dht_records","records":[5],"total_keys":0,"truncated":false}'):
        d.code2(text)
    stranger = digd.ws()
    answer(stranger, [(key, 1000)])
    stranger.error(1)
    for conn in (a, b, c, d):
        conn.alive()
    assert digd.json('/dht.json')['keys'] == []  # only from the view
    digd.settle(lambda: digd.json('/dht.json')['keys'], timeout=12)
    assert 4 < time.monotonic() - began < 8 * SLOW
    got = digd.json('/dht.json')
    assert list(got) == ['schema_version', 'generated_at', 'reporting_peers', 'total_keys',
                         'truncated',
                         'keys']
    keys = {k['content_key']: (k['providers'], k['reported_by']) for k in got['keys']}
    assert keys[key] == (4, 2) and keys[other] == (1, 2) and third not in keys
    assert [k['content_key'] for k in got['keys']][:2] == [key, other]
    rest = [k['content_key'] for k in got['keys'][2:]]
    assert rest == sorted(rest) and len(rest) <= 500
    assert all(re.fullmatch('[0-9a-f]{64}', k) for k in keys)
    assert got['reporting_peers'] in (2, 3) and got['total_keys'] == len(got['keys'])
    body = digd.fetch('/dht.json')[2] + digd.fetch('/dht')[2]
    assert b'peer_id' not in body and b'<b>xx' not in body
    for conn in (a, b):
        assert conn.id.encode() not in body


def test_dig_57_registrants_are_asked(dig_start, tmp_path):
    """{"type":"get_dht_records","max_keys":500} to everybody there, each round."""
    clock = Clock(tmp_path)
    digd = dig_start(env=clock.env, idle_timeout_secs=100000, liveness_deadline_secs=99999)
    peers = digd.group(3)
    time.sleep(0.2)
    clock.step(61)
    end = time.monotonic() + 5 * SLOW
    while not all(p.asked for p in peers):
        for peer in peers:
            peer.alive()
        assert time.monotonic() < end
        time.sleep(0.1)
    for peer in peers:
        assert peer.asked[-1] == {'type': 'get_dht_records', 'max_keys': 500}


def test_dig_53_many_scrapes(digd):
    """At once and while others talk: each is answered."""
    a, b = digd.group(2)
    conns = [digd.tcp() for _ in range(60)]
    for n, conn in enumerate(conns):
        conn.send(b'GET %s HTTP/1.1\r\nHost: x\r\n\r\n' % (b'/stats.json', b'/health',
                                                           b'/')[n % 3:][0])
        a.relay(b, [n])
    for n, conn in enumerate(conns):
        assert conn.head()[0].split()[1] == '200'
        assert b.expect('relay_message')['payload'] == [n]
