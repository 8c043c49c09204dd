"""The DIG door as operators see it: status, the list of nodes, metrics, lines in the log. All of it
is asked while nodes are connected, not when they have left."""

import re
import socket
import subprocess
import time

import pytest

from dig import Conn, fresh_id, fresh_net, written
from relay import BUILD, SLOW, SLUICECTL, next_ip
from test_descord import PROMTOOL

ROW = ['peer_id', 'network_id', 'observed', 'protocol_version', 'tls', 'verified', 'shard',
       'connected_at', 'last_seen', 'rx_bytes', 'queued_bytes']


def rows(relay):
    return relay.ctl('dig')[:-1]


def row_of(relay, peer_id):
    found = [row for row in rows(relay) if row['peer_id'] == peer_id]
    assert len(found) == 1, found
    return found[0]


def sent_row(relay, peer_id):
    """Its row, once what it was told is on its way."""
    return relay.until(lambda: next((row for row in rows(relay) if row['peer_id'] == peer_id and
                                     row['queued_bytes'] == 0), None), what='%s sent' % peer_id)


def shown(relay, *words):
    """What a person reads."""
    done = subprocess.run([SLUICECTL, '--data', relay.data, *words], capture_output=True, text=True,
                          timeout=20 * SLOW)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def plain(start):
    """A relay of no preset, whose HTTP door has metrics; and a client of its DIG door."""
    opened = []

    def make(*flags, **options):
        relay = start('--listen-dig', '127.0.0.1:0', *flags, **options)
        at = [line.split(': ')[1] for line in relay.lines if line.startswith('dig address: ')][0]

        def node(**members):
            conn = Conn((at.rsplit(':', 1)[0], int(at.rsplit(':', 1)[1])), next_ip())
            opened.append(conn)
            conn.upgrade('/')
            return conn.register(**members).registered() if members else conn
        relay.dig_at, relay.node = at, node
        return relay
    yield make
    for conn in opened:
        conn.close()


# ---- status --------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_ops_status_says_who_is_there(plain):
    relay = plain('--dig-max-conns', 7)
    dig = relay.ctl('status')[-1]['dig']
    assert dig == {'on': True, 'tls': False, 'address': relay.dig_at, 'connections': 0,
                   'registered': 0, 'networks': 0, 'messages': 0, 'relayed': 0, 'broadcasts': 0,
                   'relayed_bytes': 0, 'lost': 0}
    net = fresh_net()
    one, two = relay.node(net=net), relay.node(net=net)
    relay.node(net=fresh_net())
    relay.node()  # does not register
    one.relay(two, b'\x01\x02\x03')
    assert two.expect('relay_message')['payload'] == [1, 2, 3]
    status = relay.until(lambda: [s for s in relay.ctl('status') if s['dig']['connections'] == 4],
                         what='four')[0]
    dig = status['dig']
    assert (dig['registered'], dig['networks'], dig['relayed'], dig['relayed_bytes']) == (3, 2, 1, 3)
    assert status['limits']['max_dig_connections'] == 7
    text = shown(relay, 'status')
    assert re.search(r'^dig +%s$' % re.escape(relay.dig_at), text, re.M), text
    assert re.search(r'^dig conns +4 of 7$', text, re.M), text
    assert '3 registered in 2 networks; 1 messages relayed, 3 B in them' in text, text
    one.leave()
    relay.until(lambda: relay.ctl('status')[-1]['dig']['registered'] == 2, what='its leave')


def test_dig_ops_a_closed_door_is_said(start):
    relay = start()
    assert relay.ctl('status')[-1]['dig']['on'] is False
    assert re.search(r'^dig +closed$', shown(relay, 'status'), re.M)
    assert rows(relay) == []
    assert shown(relay, 'dig').splitlines()[-1] == '0 nodes'
    assert relay.metrics()['sluice_dig_registered'] == 0


# ---- the list ------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_ops_nodes_are_listed_while_they_are_there(dig_start):
    digd = dig_start()
    assert rows(digd) == []
    net, before = fresh_net(), int(time.time())
    sources = [next_ip() for _ in range(4)]
    nodes = [digd.peer(net=net, source=source, version=7 + n) for n, source in enumerate(sources)]
    digd.ws()  # has not registered: no row
    for n, (node, source) in enumerate(zip(nodes, sources)):
        row = sent_row(digd, node.id)
        assert list(row) == ROW
        assert row['network_id'] == net and row['protocol_version'] == 7 + n
        assert row['observed'] == '%s:%d' % node.sock.getsockname()
        assert row['observed'].startswith(source)
        assert row['tls'] is False and row['verified'] is False and row['shard'] in (0, 1)
        assert before <= row['connected_at'] <= time.time() + 1
        assert row['last_seen'] >= row['connected_at']
        assert row['queued_bytes'] == 0 and row['rx_bytes'] > 100
    was = row_of(digd, nodes[0].id)['rx_bytes']
    said = {'type': 'ping', 'timestamp': 1}
    nodes[0].say(**{'kind': 'ping', 'timestamp': 1})
    nodes[0].expect('pong')
    assert row_of(digd, nodes[0].id)['rx_bytes'] == was + len(written(said))
    table = shown(digd, 'dig').splitlines()
    assert table[0].split()[:5] == ['PEER', 'NETWORK', 'OBSERVED', 'VERSION', 'SHARD']
    assert len(table) == 6 and table[-1] == '4 nodes'
    assert [line for line in table if line.split()[:2] == [nodes[2].id, net]], table
    nodes[1].leave()
    digd.settle(lambda: len(rows(digd)) == 3)
    assert nodes[1].id not in [row['peer_id'] for row in rows(digd)]


def test_dig_ops_a_node_that_does_not_read_is_seen(dig_start):
    digd = dig_start(shards=1)
    net = fresh_net()
    deaf, talker = digd.peer(net=net, rcvbuf=4096), digd.peer(net=net)
    for _ in range(400):
        talker.relay(deaf, b'\xff' * 4000)
    digd.settle(lambda: row_of(digd, deaf.id)['queued_bytes'] > 100000)
    assert row_of(digd, talker.id)['queued_bytes'] == 0
    line = next(x for x in shown(digd, 'dig').splitlines() if x.startswith(deaf.id))
    assert re.search(r' [\d.]+ [KM]iB$', line), line


def test_dig_ops_what_nodes_call_themselves_is_shown_harmless(dig_start):
    digd = dig_start()
    names = ['"quoted\\"', '\u202etxt.exe', '\u00e9' * 64, 'a b']
    for name in names:
        digd.peer(peer_id=name, net=name)
    got = {row['peer_id']: row for row in rows(digd)}
    assert '"quoted\\"' in got and '\u00e9' * 64 in got and 'a b' in got
    assert not [name for name in got if '\u202e' in name], list(got)
    assert all(row['peer_id'] == row['network_id'] for row in got.values())
    longest = '"' * 128
    digd.peer(peer_id=longest, net=longest)
    assert row_of(digd, longest)['network_id'] == longest
    assert all(char.isprintable() or char == '\n' for char in shown(digd, 'dig'))


def test_dig_ops_masks_hold_for_the_list(dig_start):
    digd = dig_start('--log-mask-addresses')
    source = next_ip()
    node = digd.peer(source=source)
    assert row_of(digd, node.id)['observed'] == ''
    assert source not in shown(digd, 'dig') and node.id in shown(digd, 'dig')


def test_dig_ops_a_list_of_many_pages_has_each_once(dig_start):
    digd = dig_start()
    net = fresh_net()
    ids = {digd.peer(peer_id=fresh_id(), net=net if n % 2 else fresh_net()).id for n in range(600)}
    listed = [row['peer_id'] for row in rows(digd)]
    assert len(listed) == 600 and set(listed) == ids


# ---- metrics -------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_ops_metrics_are_live(plain):
    relay = plain('--dig-max-conns', 9)
    net = fresh_net()
    one, two, three = (relay.node(net=net) for _ in range(3))
    other = relay.node(net=fresh_net())
    one.relay(two, b'abc')
    two.expect('relay_message')
    one.say('broadcast', from_='x', payload=[1, 2], exclude=[two.id])
    three.expect('broadcast')
    other.relay(one, b'x')
    other.error(3)
    told = relay.metrics()

    def of(name):
        return told['sluice_dig_' + name]
    assert of('registered') == 4 and of('networks') == 2 and of('connections') == 4
    assert of('connections_limit') == 9
    assert of('relayed_total') == 1 and of('broadcasts_total') == 1 and of('errors_total') == 1
    assert of('relayed_bytes_total') == 3 + 2 + 1
    assert of('messages_total') == 7
    other.leave()
    relay.until(lambda: relay.metrics()['sluice_dig_networks'] == 1 and
                relay.metrics()['sluice_dig_registered'] == 3, what='its leave')


@pytest.mark.skipif(not PROMTOOL, reason='no promtool: tools/deps --test')
def test_dig_ops_promtool_finds_nothing(plain):
    relay = plain()
    relay.node(net=fresh_net())
    text = relay.get('/metrics')[2]
    assert 'Internal: dig_' not in text, 'every field has a name for operators'
    done = subprocess.run([PROMTOOL, 'check', 'metrics'], input=text, capture_output=True,
                          text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


# ---- the log -------------------------------------------------------------------------------------

def test_dig_ops_statistics_have_a_line(plain):
    relay = plain('--stats-interval-secs', 1, '--log-format', 'json')
    net = fresh_net()
    one, two = relay.node(net=net), relay.node(net=net)
    one.relay(two, b'abc')
    two.expect('relay_message')
    got = relay.until(lambda: [e for e in relay.events('dig_statistics') if e['relayed'] == 1],
                      what='the line')[0]
    assert (got['connections'], got['registered'], got['networks'], got['messages'],
            got['relayed_bytes']) == (2, 2, 1, 3, 3), got


def test_dig_ops_a_closed_door_has_no_statistics(start):
    relay = start('--stats-interval-secs', 1, '--log-format', 'json')
    relay.wait_events('statistics', 2)
    assert relay.events('dig_statistics') == []


# ---- the client of the tools ---------------------------------------------------------------------

DIGGER = BUILD / 'tools' / 'sluice-dig'


def digger(digd, *words, code=0):
    done = subprocess.run([DIGGER, *words[:1], '%s:%d' % digd.at, *words[1:]], capture_output=True,
                          text=True, timeout=20 * SLOW)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.sanitize
def test_dig_ops_the_client_of_the_tools_is_a_node(digd):
    node = digd.peer()
    out = digger(digd, 'peers', '--network', node.net, '--id', 'a' * 64)
    first, second = out.splitlines()
    assert first == 'registered peer=%s network=%s connected=2' % ('a' * 64, node.net)
    assert second.split()[:2] == ['peers', 'count=2']
    assert set(second.split('ids=')[1].split(',')) == {node.id, 'a' * 64}
    node.told('peer_connected', 'a' * 64)
    node.told('peer_disconnected', 'a' * 64)
    assert digger(digd, 'send', '--network', node.net, '--to', node.id, '--messages', '3',
                  '--bytes', '200').splitlines()[-1].startswith('sent messages=3 bytes=600 ')
    assert [len(node.expect('relay_message', seq=n)['payload']) for n in range(3)] == [200] * 3


def test_dig_ops_the_client_says_what_went_wrong(digd):
    node = digd.peer(peer_id='taken')
    assert 'code 3' in digger(digd, 'send', '--to', 'nobody', code=1)
    assert 'refused:' in digger(digd, 'register', '--network', node.net, '--id', 'taken', code=1)
    assert 'in time' in digger(digd, 'listen', '--timeout', '1', code=1)
    for words in (['send'], ['peers', '--to', 'x'], ['register', '--bytes', '0'], ['dance'],
                  ['register', '--id', 'x' * 129], ['register', '--bind', 'here']):
        digger(digd, *words, code=2)
    with socket.socket() as mute:
        mute.bind(('127.0.0.1', 0))
        done = subprocess.run([DIGGER, 'register', '127.0.0.1:%d' % mute.getsockname()[1]])
        assert done.returncode == 3
        mute.listen()  # connects, and nobody speaks
        done = subprocess.run([DIGGER, 'register', '127.0.0.1:%d' % mute.getsockname()[1],
                               '--timeout', '1'])
        assert done.returncode == 3


def test_dig_ops_the_client_notices_bytes_that_changed(digd):
    """The node that it sends to answers with one bit less."""
    node = digd.peer()
    argv = [DIGGER, 'send', '%s:%d' % digd.at, '--network', node.net, '--to', node.id, '--echo',
            '--messages', '2', '--bytes', '50']
    for spoil in (0, 1):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
            for _ in range(2):
                said = node.expect('relay_message')
                node.relay(said['from'], [said['payload'][0] ^ spoil] + said['payload'][1:])
            out = client.communicate(timeout=20 * SLOW)[0]
        assert client.returncode == spoil
        assert ('match=%s' % ['yes', 'no'][spoil]) in out, out
