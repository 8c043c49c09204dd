"""TURN as operators see it: counters, listings, credentials, lines in the log (issue 4, "Seeing it").
Everything is asked while allocations live, not when they have ended."""

import json
import os
import re
import stat
import subprocess
import time

import pytest

from relay import BUILD, SLOW, SLUICECTL, next_ip
from test_descord import PROMTOOL
from turn import ALLOCATE, UDP_TRANSPORT, UdpPeer, ephemeral, long_term_key

V10 = bytes.fromhex('000300082112a4420102030405060708090a0b0c0019000411000000')
TURNER = BUILD / 'tools' / 'sluice-turn'


def metric(turnd, name, **labels):
    text = ','.join('%s="%s"' % pair for pair in labels.items())
    return turnd.relay.metrics()['sluice_turn_' + name + ('{%s}' % text if text else '')]


def until(turnd, want, what, timeout=3):
    return turnd.relay.until(want, timeout, what)


def rows(turnd):
    return turnd.relay.ctl('allocations')[:-1]


def row_of(turnd, client):
    found = [row for row in rows(turnd) if row['client'] == '%s:%d' % client.path.local]
    assert len(found) == 1, found
    return found[0]


# ---- counters -----------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_ops_counters_are_live(turn_start):
    """Each changes while the allocation lives, by exactly what happened."""
    turnd = turn_start()
    client = turnd.udp()
    client.ask(1)
    client.allocate()
    with UdpPeer() as far, UdpPeer() as stranger:
        assert client.permit(far.at[0]).code == 0
        assert client.bind_channel(0x4001, far.at).code == 0
        for n in (100, 0, 23):
            client.send_channel(0x4001, bytes(n))
            assert far.recv() == (bytes(n), client.relayed)
        far.send(bytes(50), client.relayed)
        assert client.data() == (0x4001, bytes(50))
        stranger.send(b'not permitted', client.relayed)
        client.send(stranger.at, b'neither')
        client.send_channel(0x4002, b'unbound')
        until(turnd, lambda: metric(turnd, 'dropped_total', cause='no_permission') == 2 and
              metric(turnd, 'dropped_total', cause='no_channel') == 1, 'the drops')
    assert client.request(ALLOCATE, UDP_TRANSPORT).code == 437
    told = turnd.relay.metrics()

    def of(name):
        return told['sluice_turn_' + name]
    assert of('allocations') == 1 and of('permissions') == 1 and of('channels') == 1
    assert of('allocations_opened_total') == 1 and of('bindings_total') == 1
    assert of('datagrams_total{side="peer",direction="out"}') == 3
    assert of('bytes_total{side="peer",direction="out"}') == 123
    assert of('datagrams_total{side="client",direction="out"}') == 1
    assert of('bytes_total{side="client",direction="out"}') == 50
    assert of('errors_total{code="401"}') == 1 and of('errors_total{code="437"}') == 1
    assert client.refresh(0).code == 0
    until(turnd, lambda: metric(turnd, 'allocations') == 0, 'its end')
    told = turnd.relay.metrics()
    assert of('allocations') == 0 and of('permissions') == 0 and of('channels') == 0
    assert of('allocations_closed_total{cause="released"}') == 1


def test_turn_ops_a_lost_stream_and_an_ended_one_are_told_apart(turn_start):
    turnd = turn_start()
    client = turnd.tcp().allocate()
    until(turnd, lambda: metric(turnd, 'streams') == 1, 'the stream')
    client.close()
    until(turnd, lambda: metric(turnd, 'allocations_closed_total', cause='lost') == 1, 'the loss')
    until(turnd, lambda: metric(turnd, 'streams') == 0 and
          metric(turnd, 'streams_closed_total') == 1, 'its end')


@pytest.mark.skipif(not PROMTOOL, reason='no promtool: tools/deps --test')
def test_turn_ops_promtool_finds_nothing(turnd):
    with UdpPeer() as far:
        client = turnd.udp().allocate()
        assert client.permit(far.at[0]).code == 0
        client.send(far.at, b'x')
        assert far.recv()
    done = subprocess.run([PROMTOOL, 'check', 'metrics'], input=turnd.relay.get('/metrics')[2],
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_turn_ops_every_field_has_a_name_for_operators(turnd):
    assert not re.search(r'Internal: turn_', turnd.relay.get('/metrics')[2])


def test_turn_ops_trains_are_counted_by_length(turn_start):
    turnd = turn_start('--shards', 1)
    client = turnd.udp().allocate()
    with UdpPeer() as far:
        assert client.bind_channel(0x4001, far.at).code == 0
        before = turnd.relay.metrics()
        client.path.sock.setsockopt(17, 103, 20)  # UDP_SEGMENT: one send, forty datagrams
        client.path.send(b'\x40\x01\x00\x10abcdefghijklmnop' * 40)
        for _ in range(40):
            assert far.recv() == (b'abcdefghijklmnop', client.relayed)
    until(turnd, lambda: metric(turnd, 'train_length_sum') >=
          before['sluice_turn_train_length_sum'] + 40, 'the last one counted')
    after = turnd.relay.metrics()

    def more(name):
        return after['sluice_turn_train_length_' + name] - \
            before['sluice_turn_train_length_' + name]
    # an answer sent before may be counted only now: what has been sent is counted afterwards
    assert 40 <= more('sum') <= 41 and more('count') < 40, 'fewer sends than datagrams'
    assert more('bucket{le="1"}') <= more('bucket{le="4"}') <= more('bucket{le="16"}') <= \
        more('bucket{le="64"}') == more('bucket{le="+Inf"}') == more('count')
    assert more('bucket{le="64"}') > more('bucket{le="4"}'), 'a train left as one'


# ---- listings -----------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_ops_allocations_are_listed_while_they_live(turn_start):
    turnd = turn_start()
    assert rows(turnd) == []
    clients = [turnd.udp().allocate(), turnd.tcp(user='bob', password='word').allocate()]
    with UdpPeer() as far:
        for client in clients:
            assert client.permit(far.at[0], '127.9.9.9').code == 0
            assert client.bind_channel(0x4001, far.at).code == 0
            client.send_channel(0x4001, bytes(70))
            assert far.recv() == (bytes(70), client.relayed)
            for _ in range(2):
                far.send(bytes(11), client.relayed)
                assert client.data() == (0x4001, bytes(11))
    for client, user, transport in zip(clients, ('user', 'bob'), ('udp', 'tcp')):
        row = row_of(turnd, client)
        assert (row['user'], row['transport']) == (user, transport)
        assert row['relays'] == 'udp'
        assert row['relayed'] == ['%s:%d' % client.relayed]
        assert row['permissions'] == 2 and row['channels'] == 1
        assert (row['datagrams_from_client'], row['bytes_from_client']) == (1, 70)
        assert (row['datagrams_to_client'], row['bytes_to_client']) == (2, 22)
        assert row['shard'] in (0, 1) and not row['away']
        assert 0 <= row['age_seconds'] < 60 and 500 < row['expires_seconds'] <= 600
    table = subprocess.run([SLUICECTL, '--data', turnd.relay.data, 'allocations'],
                           capture_output=True, text=True).stdout.splitlines()
    assert table[0].split()[:4] == ['USER', 'CLIENT', 'TRANSPORT', 'RELAYED']
    assert len(table) == 4 and table[-1] == '2 allocations'
    assert clients[0].refresh(0).code == 0
    until(turnd, lambda: len(rows(turnd)) == 1, 'one row')


def test_turn_ops_a_list_of_many_pages_has_each_once(turn_start):
    turnd = turn_start()
    clients = [turnd.udp().allocate() for _ in range(600)]
    listed = [row['relayed'][0] for row in rows(turnd)]
    assert len(listed) == len(set(listed)) == 600
    assert set(listed) == {'%s:%d' % client.relayed for client in clients}
    until(turnd, lambda: metric(turnd, 'allocations') == 600, 'the last one counted')


def test_turn_ops_status_says_how_full_it_is(turn_start):
    turnd = turn_start('--turn-max-allocations', 5)
    turnd.udp().allocate()
    status = turnd.relay.ctl('status')[-1]
    assert status['turn']['on'] and status['turn']['allocations'] == 1
    assert status['turn']['addresses'] == ['%s:%d' % turnd.at]
    assert status['limits']['max_turn_allocations'] == 5
    text = subprocess.run([SLUICECTL, '--data', turnd.relay.data, 'status'], capture_output=True,
                          text=True).stdout
    assert 'allocations    1 of 5' in text, text


# ---- credentials --------------------------------------------------------------------------------

def credentials(turnd, *words, code=0):
    done = subprocess.run([SLUICECTL, '--data', turnd.relay.data, 'turn-credentials', *words],
                          capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else json.loads(done.stdout)


@pytest.mark.sanitize
def test_turn_ops_credentials_let_a_client_in_and_are_never_logged(turn_start):
    turnd = turn_start('--log-level', 'trace', secrets=('north', 'south'))
    given = credentials(turnd, 'alice', '--ttl', '60')
    assert set(given) == {'username', 'password', 'ttl', 'uris'} and given['ttl'] == 60
    expiry, name = given['username'].split(':')
    assert name == 'alice' and 55 <= int(expiry) - time.time() <= 61
    at = '%s:%d' % turnd.at
    assert given['uris'] == ['turn:%s?transport=udp' % at, 'turn:%s?transport=tcp' % at,
                             'stun:' + at]
    client = turnd.udp(user=given['username'], password=given['password']).allocate()
    row = row_of(turnd, client)
    assert row['user'] == 'alice', 'whose quota it is'
    nameless = credentials(turnd)
    assert nameless['username'].isdigit() and nameless['ttl'] == 86400
    assert nameless['username'] not in turnd.relay.log()
    turnd.tcp(user=nameless['username'], password=nameless['password']).allocate()
    key = long_term_key(1, given['username'], 'realm', given['password'])
    log = turnd.relay.log()
    for secret in (given['password'], nameless['password'], key.hex(), 'north', 'south'):
        assert secret not in log
    assert given['password'] not in '\n'.join(turnd.relay.lines)


def test_turn_ops_credentials_end_with_their_time(turn_start):
    turnd = turn_start()
    given = credentials(turnd, 'alice', '--ttl', '1')
    time.sleep(2.1)
    client = turnd.udp(user=given['username'], password=given['password'])
    assert client.request(ALLOCATE, UDP_TRANSPORT).code == 401


def test_turn_ops_without_a_secret_it_says_what_is_missing(turn_start, start):
    assert '--turn-secret' in credentials(turn_start(secrets=()), code=1)

    class Closed:
        relay = start()
    assert 'the TURN door is closed' in credentials(Closed, code=1)


def test_turn_ops_bad_names_are_refused(turnd):
    for name in ('a b', 'a\x1b[2Jb', 'a\nb', 'x' * 128):
        done = subprocess.run([SLUICECTL, '--data', turnd.relay.data, 'turn-credentials', name],
                              capture_output=True, text=True)
        assert done.returncode in (1, 2) and done.stderr, name
    assert credentials(turnd, '"\\:%s')['username'].endswith(':"\\:%s')


def test_turn_ops_the_uris_are_the_operators(turn_start):
    turnd = turn_start('--turn-external-ip', '203.0.113.9')
    assert credentials(turnd)['uris'][-1] == 'stun:203.0.113.9:%d' % turnd.at[1]
    turnd = turn_start('--preset', 'dusk', env={'DUSK_TURN_PUBLIC_HOST': 'turn.example.org'})
    assert credentials(turnd)['uris'][-1] == 'stun:turn.example.org:%d' % turnd.at[1]


def test_turn_ops_the_admin_socket_is_private(turnd):
    assert stat.S_IMODE(os.stat(turnd.relay.data / 'admin.sock').st_mode) == 0o600


# ---- the log ------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind, how', [('udp', 'released'), ('tcp', 'lost')])
def test_turn_ops_an_allocation_has_two_lines(turn_start, kind, how):
    turnd = turn_start('--log-format', 'json')
    client = turnd.client(kind).allocate()
    at, relayed = '%s:%d' % client.path.local, ['%s:%d' % client.relayed]
    opened = turnd.relay.wait_events('allocation_opened')
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        client.send(far.at, bytes(1234))
        assert far.recv()
        for _ in range(2):
            far.send(bytes(17), client.relayed)
            assert client.data() == (far.at, bytes(17))
    if how == 'released':
        assert client.refresh(0).code == 0
    else:
        client.close()
    closed = turnd.relay.wait_events('allocation_closed')
    assert len(opened) == len(closed) == 1
    for event in opened + closed:
        assert event['level'] == 'info'
        assert (event['user'], event['client'], event['relayed']) == ('user', at, relayed)
    assert opened[0]['lifetime_s'] == 600
    assert (closed[0]['datagrams_from_client'], closed[0]['bytes_from_client']) == (1, 1234)
    assert (closed[0]['datagrams_to_client'], closed[0]['bytes_to_client']) == (2, 34)
    assert closed[0]['reason'] and closed[0]['duration_ms'] < 60000


def test_turn_ops_masks_keep_all_addresses_out(turn_start):
    turnd = turn_start('--log-mask-addresses', '--log-level', 'trace')
    client = turnd.udp().allocate()
    assert client.refresh(0).code == 0
    line = turnd.relay.wait_log('event=allocation_closed.*')[0]
    assert 'user=user' in line
    for word in (client.path.local[0], ':%d' % client.relayed[1]):
        assert word not in turnd.relay.log()


@pytest.mark.parametrize('name', ['a\nts=1 level=info event=forged', '\x1b[2J\x9b31m', '%s%n"\\=',
                                  '\u202egnp.exe', 'x' * 400], ids=range(5))
def test_turn_ops_hostile_names_stay_in_their_field(turn_start, name):
    """An ephemeral name is anything that was signed: its id may be hostile."""
    turnd = turn_start()
    user, password = ephemeral('north', name=name)
    client = turnd.udp(user=user, password=password).allocate()
    line = turnd.relay.wait_log('.*event=allocation_opened.*')[0]
    assert not re.search('[\x00-\x1f\x7f-\x9f\u2028-\u202e]', line), line
    assert 'client=%s:%d' % client.path.local in line
    assert not any(text.startswith('ts=1 ') for text in turnd.relay.log().splitlines())
    row = row_of(turnd, client)
    assert len(row['user']) < 48 and re.fullmatch('[^\x00-\x1f\x7f-\x9f\u2028-\u202e]+', row['user'])
    assert turnd.udp(user=user, password='x').request(ALLOCATE, UDP_TRANSPORT).code == 401


def test_turn_ops_a_limited_source_is_named_once(turn_start):
    turnd = turn_start(replies=5)
    for source in (next_ip(), next_ip()):
        client = turnd.udp(source=source)
        for _ in range(100):
            client.path.send(V10)
        line = 'event=replies_limited source=%s.0/24' % source.rsplit('.', 1)[0]
        turnd.relay.wait_log(re.escape(line))
        for _ in range(100):
            client.path.send(V10)
    until(turnd, lambda: metric(turnd, 'dropped_total', cause='reply_rate') >= 350, 'the drops')
    time.sleep(0.3)
    assert len(re.findall('event=replies_limited', turnd.relay.log())) == 2


def test_turn_ops_statistics_say_what_was_relayed(turn_start):
    turnd = turn_start('--stats-interval-secs', 1, '--log-format', 'json')
    turnd.relay.wait_events('statistics')
    assert not turnd.relay.events('turn_statistics'), 'nothing to say yet'
    turnd.udp().allocate()
    said = turnd.relay.wait_events('turn_statistics')[0]
    assert said['allocations'] == said['allocated'] == 1


# ---- the tool that tries it ---------------------------------------------------------------------

@pytest.mark.skipif(not TURNER.exists(), reason='nothing is built: tools/build')
@pytest.mark.parametrize('flags, indent', [([], None), (['--tcp'], 1), (['--through-relay'], None),
                                           (['--tcp', '--through-relay'], 4)])
def test_turn_ops_sluice_turn_carries_and_compares(turnd, tmp_path, flags, indent):
    given = tmp_path / 'credentials'
    given.write_text(json.dumps(credentials(turnd, 'demo'), indent=indent))
    at = '%s:%d' % turnd.at
    done = subprocess.run([TURNER, 'stun', at, *(flag for flag in flags if flag == '--tcp')],
                          capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == 0 and ' same=yes' in done.stdout, done
    done = subprocess.run([TURNER, 'echo', at, '--credentials', given, '--bind', next_ip(), *flags],
                          capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == 0 and ' match=yes' in done.stdout, done
    until(turnd, lambda: not [row for row in rows(turnd) if row['user'] == 'demo'], 'releases')


def test_turn_ops_sluice_turn_says_what_is_wrong(turnd):
    at = '%s:%d' % turnd.at
    for argv, code, words in [
            (['echo', at, '-u', 'user', '-p', 'wrong'], 1, 'the server says 401'),
            (['echo', at], 2, '--credentials'),
            (['stun', 'nonsense'], 2, 'HOST:PORT'),
            (['stun', at, '--bind', 'x'], 2, 'no IP address')]:
        done = subprocess.run([TURNER, *argv], capture_output=True, text=True, timeout=20 * SLOW)
        assert done.returncode == code and words in done.stderr, (argv, done)
