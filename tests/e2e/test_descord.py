"""descord.md §10, checks 1 (TCP), 2-5, 8-20, 22 and 25, under --preset descord. Check 6 is in
test_interop.py, 7 in test_relay.py (52), 18 in test_drain.py."""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from circuit import accept_stop, auto_stop, dial, get_identify, join, reserve, serve_stop
from rawp2p import Closed, NotAvailable
from relay import SLOW, SLUICE, Relay, next_ip
from wire import HOP, LIMIT, NO_RESERVATION, OK, REFUSED, HopMessage, Key, WireError, hop_connect

MIB = 1 << 20


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    live = Relay(tmp_path_factory.mktemp('descord'), preset='descord').start()
    yield live
    live.check()
    assert live.stop() == 0


def can_unshare():
    done = subprocess.run(['unshare', '-Urn', 'ip', 'link', 'set', 'lo', 'up'], capture_output=True)
    return done.returncode == 0


@pytest.mark.skipif(not can_unshare(), reason='needs a network namespace: allow unshare -Urn '
                    '(sysctl kernel.unprivileged_userns_clone=1) and install iproute2')
def test_descord_01_without_flags_it_listens_at_9000_on_all_interfaces(tmp_path):
    env = dict(os.environ, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / 'share'))
    env.pop('STATE_DIRECTORY', None)
    descord = tmp_path / 'descord-relay'
    descord.symlink_to(SLUICE)
    with open(tmp_path / 'log', 'wb') as log:
        proc = subprocess.Popen(
            ['unshare', '-Urn', 'sh', '-c', 'ip link set lo up && exec "$0"', str(descord)],
            stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=tmp_path)
    try:
        lines = []
        for line in proc.stdout:
            lines.append(line.strip())
            if line.startswith('try it:'):
                break
        table = pathlib.Path('/proc/%d/net/tcp' % proc.pid).read_text().splitlines()[1:]
        listening = [line.split()[1] for line in table if line.split()[3] == '0A']
        assert {'00000000:%04X' % port for port in (9000, 9001)} <= set(listening), listening
        told = [line for line in lines if line.startswith('relay address: ')]
        # what 0.0.0.0 means here: this namespace has nothing but loopback
        assert any('/ip4/127.0.0.1/tcp/9000/p2p/12D3Koo' in line for line in told), lines
        text = (tmp_path / 'log').read_text()
        assert '🚀' in text and re.search(r'12D3Koo\w+', text), text
    finally:
        proc.terminate()
        assert proc.wait(20) == 0


def test_descord_02_a_second_start_on_the_same_port_exits_1(start, tmp_path):
    relay = start(preset='descord')
    other = Relay(tmp_path / 'other', preset='descord', listen='127.0.0.1:%d' % relay.at[1])
    done = subprocess.run(other.argv, capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == 1, done
    assert str(relay.at[1]) in done.stderr, done.stderr
    same = Relay(tmp_path / 'same', preset='descord', data=relay.data)
    done = subprocess.run(same.argv, capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == 1 and str(relay.data) in done.stderr, done.stderr
    with relay.connect() as session:
        assert session.alive()


@pytest.mark.parametrize('flag, value', [
    ('--max-circuits', 'abc'), ('--max-circuits', '-1'), ('--max-circuits', '1e3'),
    ('--max-circuits', ''), ('--max-circuits', '99999999999999999999'), ('--port', '65536'),
    ('--log-level', 'loud'), ('--listen-p2p', '127.0.0.1'), ('--announce', '/ip4/1.2.3/tcp/1'),
    ('--reservation-rate-per-peer', '30'), ('--shards', '65')])
def test_descord_03_a_bad_value_exits_2(tmp_path, flag, value):
    done = subprocess.run([str(SLUICE), '--preset', 'descord', '--data', str(tmp_path / 'data'),
                           '%s=%s' % (flag, value)], capture_output=True, text=True,
                          timeout=20 * SLOW)
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and flag.strip('-') in lines[0], done.stderr
    assert not value or value in lines[0], done.stderr
    assert done.stdout == '' and not (tmp_path / 'data').exists()


LIMITS = {'max-reservations': 1024, 'max-reservations-per-peer': 3, 'max-circuits': 512,
          'max-circuits-per-peer': 5, 'circuit-duration-secs': 3600, 'circuit-bandwidth-mb': 100,
          'reservation-secs': 3600}


def test_descord_04_the_limits_read_back(tmp_path):
    done = subprocess.run([str(SLUICE), '--preset', 'descord', '--check-config', '--data',
                           str(tmp_path)], capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(' = ', 1) for line in done.stdout.splitlines() if ' = ' in line)
    assert {name: told.get(name) for name in LIMITS} == {n: str(v) for n, v in LIMITS.items()}


def test_descord_04_the_limits_are_in_the_statistics(relay):
    status, _, text = relay.get('/stats.json')
    assert status == 200
    limits = json.loads(text)['limits']
    assert set(LIMITS.values()) - {100} <= set(limits.values()), limits
    assert 100 * MIB in limits.values() or 100 in limits.values(), limits


def test_descord_05_reservation_reply(relay, placement):
    with relay.connect(shard=placement.target) as session:
        answer = reserve(session)
        assert answer.status == OK
        assert answer.limit == (3600, 100 * MIB)
        assert abs(answer.expire - time.time() - 3600) <= 3


def test_descord_05_the_limit_is_told_to_both_ends(relay, placement):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        serve_stop(target)
        stream = source.open(HOP, hop_connect(target.key.peer_id))
        message, _ = accept_stop(target)
        assert message.limit == (3600, 100 * MIB)
        assert HopMessage(stream.message()).limit == (3600, 100 * MIB)


def crowd(relay, size, work=None):
    """Many connections, made by a few threads; `work` is done on each."""
    def one(_):
        session = relay.connect()
        if work:
            work(session)
        return session
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(size)))


def test_libp2p_51_descord_08_the_1025th_peer_is_refused(start, placement):
    relay = start(preset='descord')
    special = relay.connect(shard=placement.target)
    assert reserve(special).status == OK
    sessions = crowd(relay, 1023, lambda s: setattr(s, 'got', reserve(s).status))
    assert {s.got for s in sessions} == {OK}
    with relay.connect(shard=placement.source) as late:
        assert reserve(late).status == REFUSED
        assert reserve(special).status == OK, 'a renewal at a full table'
        relay.wait_log('🔄')
        assert relay.wait_log('⛔')
        sessions.pop().close()
        relay.until(lambda: reserve(late).status == OK, 3, 'the slot of a closed connection')
    for session in sessions:
        session.close()
    special.close()


def test_descord_09_the_sixth_circuit_of_a_peer_is_201(relay, placement):
    """Counted as source and as target, over all connections of the peer."""
    key = Key()
    with relay.connect(key, placement.source) as one, relay.connect(key, placement.target) as two, \
            relay.connect(shard=placement.target) as target, relay.connect() as other:
        for session in (target, other, two):
            reserve(session)
            auto_stop(session)
        circuits = []
        for session, peer in ((one, target), (two, target), (one, other), (two, other),
                              (other, two)):
            answer, stream = dial(session, peer.key.peer_id)
            assert answer.status == OK
            circuits.append(stream)
        assert dial(one, other.key.peer_id)[0].status == LIMIT
        assert dial(two, target.key.peer_id)[0].status == LIMIT
        assert dial(target, key.peer_id)[0].status == LIMIT, 'the target is full too'
        circuits[2].reset()
        relay.until(lambda: dial(one, other.key.peer_id)[0].status == OK, 3, 'the freed slot')


def test_descord_10_the_513th_circuit_is_201(start, placement):
    relay = start(preset='descord')
    pairs, first = [], []
    for i in range(103):
        shards = (placement.source, placement.target) if i == 0 else (None, None)
        source, target = relay.connect(shard=shards[0]), relay.connect(shard=shards[1])
        assert reserve(target).status == OK
        pairs.append((source, auto_stop(target)))
    for i in range(512):
        answer, stream = dial(pairs[i // 5][0], pairs[i // 5][1].key.peer_id)
        assert answer.status == OK, i
        first = first or [stream]
    source, target = pairs[102]
    assert dial(source, target.key.peer_id)[0].status == LIMIT
    assert relay.metrics()['relay_active_circuits'] == 512
    first[0].reset()
    relay.until(lambda: dial(source, target.key.peer_id)[0].status == OK, 3, 'the freed slot')
    for pair in pairs:
        for session in pair:
            session.close()
    relay.until(lambda: relay.metrics()['relay_active_circuits'] == 0, 5, 'an empty table')


@pytest.mark.parametrize('count', ['per-direction', 'sum'])
def test_descord_11_the_byte_limit_is_exact(start, placement, count):
    relay = start('--circuit-bandwidth-mb', 1, '--byte-count', count, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        back = 300000
        far.send(os.urandom(back))
        assert len(near.recv(back)) == back
        before = far.rx_bytes
        data = os.urandom(MIB + 200000)
        try:
            near.send(data)
        except Closed:
            pass
        assert far.wait_reset(5) and near.wait_reset(5)
        assert not far.eof
        want = MIB if count == 'per-direction' else MIB - back
        assert far.rx_bytes - before == want
        assert bytes(far.inbuf) == data[:want]
    assert 'limit' in relay.wait_log('🔌.*')[0]


def test_descord_11_exactly_the_limit_is_no_offence(start, placement):
    relay = start('--circuit-bandwidth-mb', 1, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        near.send(bytes(MIB))
        near.close_write()
        assert len(far.recv_to_eof()) == MIB
        far.send(b'thanks')
        assert near.recv(6) == b'thanks'


def test_descord_12_a_busy_circuit_ends_on_time(start, placement):
    relay = start('--circuit-duration-secs', 2, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).limit == (2, 100 * MIB)
        near, far = join(source, target)
        began = time.monotonic()
        idle = join(source, target)[0]
        with pytest.raises(Closed):
            while time.monotonic() - began < 5:
                near.send(bytes(1000))
                time.sleep(0.001)
        seconds = time.monotonic() - began
        assert 1.5 <= seconds <= 2.5, seconds
        assert far.wait_reset(1) and idle.wait_reset(1)
        assert source.alive() and target.alive()
    assert 'limit' in relay.wait_log('🔌.*')[0]


def test_descord_13_statistics_each_second(start, placement):
    relay = start('--stats-interval-secs', 1, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        far.sink = len
        near.send(bytes(40 * MIB))
        far.send(bytes(24 * MIB))
        relay.until(lambda: near.rx_bytes >= 24 * MIB and far.rx_bytes >= 40 * MIB, 10, 'the bytes')
        count = len(re.findall('Relay Statistics', relay.log()))
        relay.wait_log('Relay Statistics', 6, count + 3)
        block = relay.log().rsplit('Relay Statistics', 2)[1]
        for words in ('Uptime', 'Connected peers: 2', 'Peers with circuits: 2',
                      'Active circuits: 1'):
            assert words in block, block
        moved = float(re.search(r'Total bandwidth: ([\d.]+) MB', block).group(1))
        assert any(abs(moved * unit - 64 * MIB) < 0.02 * 64 * MIB for unit in (MIB, 1e6)), moved
    blocks = re.findall('Relay Statistics', relay.log())
    time.sleep(3)
    assert 2 <= len(re.findall('Relay Statistics', relay.log())) - len(blocks) <= 4


def test_descord_14_monitoring(relay, placement):
    status, headers, text = relay.get('/metrics')
    assert status == 200 and headers['Content-Type'].startswith('text/plain; version=0.0.4')
    kinds = dict(re.findall(r'^# TYPE (\S+) (\S+)$', text, re.M))
    # descord.md calls the uptime a counter, and wants promtool clean, which no counter without
    # _total is
    for name, kind in (('relay_uptime_seconds', 'gauge'), ('relay_connected_peers', 'gauge'),
                       ('relay_peers_with_circuits', 'gauge'), ('relay_active_circuits', 'gauge'),
                       ('relay_bandwidth_bytes_total', 'counter')):
        assert kinds.get(name) == kind
        assert re.search(r'^# HELP %s \S' % name, text, re.M), name
    seen = set()
    for line in text.splitlines():  # the grammar, where promtool is not at hand
        if not line.startswith('#'):
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{[^{}]*\})? (\S+)', line)
            assert match and float(match.group(3)) >= 0, line
            assert match.group(1, 2) not in seen, 'twice: ' + line
            seen.add(match.group(1, 2))
            family = re.sub('_(bucket|sum|count)$', '', match.group(1))
            assert family in kinds or match.group(1) in kinds, line
    status, headers, text = relay.get('/health')
    assert (status, text.strip()) == (200, '{"status":"ok"}')
    assert headers['Content-Type'].startswith('application/json')
    status, _, text = relay.get('/nope')
    assert (status, text.strip()) == (404, 'Not Found')


# Unpacked, not installed: the package would start a server.
UNPACKED = pathlib.Path(__file__).resolve().parents[2] / '.deps' / 'root' / 'usr' / 'bin' / 'promtool'
PROMTOOL = shutil.which('promtool') or (str(UNPACKED) if UNPACKED.exists() else None)


@pytest.mark.skipif(not PROMTOOL, reason='no promtool: tools/deps --test')
def test_descord_14_promtool_finds_nothing(relay):
    done = subprocess.run([PROMTOOL, 'check', 'metrics'], input=relay.get('/metrics')[2],
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_descord_14_values_are_live(start, placement):
    relay = start(preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        near.send(bytes(MIB))
        far.recv(MIB)
        told = relay.until(lambda: relay.metrics() if relay.metrics()['relay_bandwidth_bytes_total']
                           >= MIB else None, 2, 'the bytes')
        assert told['relay_bandwidth_bytes_total'] == MIB
        assert told['relay_connected_peers'] == 2
        assert told['relay_peers_with_circuits'] == 2
        assert told['relay_active_circuits'] == 1


def test_descord_14_port_0_closes_the_door(start):
    relay = start('--monitoring-port', 0, preset='descord', http=None)
    assert relay.http is None
    with relay.connect() as session:
        assert session.alive()


def test_descord_14_idle_scrapers_delay_nothing(relay, placement):
    host, port = relay.http.rsplit(':', 1)
    scrapers = [socket.create_connection((host, int(port))) for _ in range(200)]
    for i, scraper in enumerate(scrapers):
        if i % 2:
            scraper.send(b'GET /metrics HTTP/1.1\r\nHost: x\r\n')  # and never the end of it
    try:
        with relay.connect(shard=placement.source) as source, \
                relay.connect(shard=placement.target) as target:
            reserve(target)
            near, far = join(source, target)
            slowest = 0.0
            for _ in range(50):
                began = time.monotonic()
                near.send(b'ping')
                far.recv(4)
                far.send(b'pong')
                near.recv(4)
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 0.2 * SLOW, slowest
    finally:
        for scraper in scrapers:
            scraper.close()
    relay.until(lambda: relay.get('/health')[0] == 200, 10, 'the HTTP door')


def test_descord_15_a_timeout_is_logged_and_then_204(start, placement):
    relay = start('--reservation-secs', 2, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        assert target.key.text in relay.wait_log('⏰.*', 6)[0]
        assert dial(source, target.key.peer_id)[0].status == NO_RESERVATION


EVENTS = {'reservation_accepted': '✅', 'reservation_renewed': '🔄', 'reservation_timeout': '⏰',
          'circuit_accepted': '🔀', 'circuit_closed': '🔌', 'request_denied': '⛔'}


def six_events(relay, placement):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        reserve(target)
        near, far = join(source, target)
        near.send(b'12345')
        far.recv(5)
        near.close_write()
        far.wait_eof()
        far.close_write()
        near.wait_eof()
        assert dial(source, Key().peer_id)[0].status == NO_RESERVATION
        time.sleep(3.2)
    return source.key.text, target.key.text


@pytest.mark.sanitize
def test_descord_16_the_six_events_once_each(start, placement):
    relay = start('--reservation-secs', 3, preset='descord')
    source, target = six_events(relay, placement)
    for mark in EVENTS.values():
        lines = relay.wait_log('.*%s.*' % mark)
        assert len(lines) == 1, lines
        assert (source if mark in '🔀🔌⛔' else target) in lines[0]
    closed = relay.wait_log('🔌.*')[0]
    assert target in closed


def test_descord_16_the_six_events_as_json(start, placement):
    relay = start('--reservation-secs', 3, '--log-format', 'json', preset='descord')
    source, target = six_events(relay, placement)
    for name in EVENTS:
        assert len(relay.wait_events(name)) == 1, relay.events(name)
    closed = relay.events('circuit_closed')[0]
    assert source in closed.values() and target in closed.values() and 5 in closed.values(), closed
    for event in relay.events():
        assert event['level'] in ('error', 'warn', 'info'), event


def test_descord_17_restart_keeps_the_peer_id(start):
    relay = start(preset='descord')
    assert relay.stop() == 0
    assert start(preset='descord', data=relay.data).peer == relay.peer


def forms_of(ip, port):
    """All the ways in which an address could be written."""
    packed = socket.inet_aton(ip)
    return [ip.encode(), packed, packed[::-1], packed.hex().encode()]


@pytest.mark.sanitize
def test_descord_19_the_target_never_sees_the_sources_address(start, placement):
    """Everything that the relay ever tells the target, decrypted, and everything that it logs."""
    relay = start(preset='descord')
    ip = next_ip()
    with relay.connect(shard=placement.target) as target:
        target.record = bytearray()
        with relay.connect(shard=placement.source, source=ip) as source:
            assert source.local[0] == ip
            reserve(target)
            reserve(source)
            get_identify(target)
            near, far = join(source, target)
            near.send(b'hello')
            assert far.recv(5) == b'hello'
            with pytest.raises(NotAvailable):
                target.open('/ipfs/kad/1.0.0')
            near.reset()
            assert far.wait_reset()
        serve_stop(source)
        relay.until(lambda: dial(target, source.key.peer_id)[0].status == NO_RESERVATION, 3, '204')
        assert target.alive()
        told = bytes(target.record)
        assert source.key.peer_id in told, 'the peer id is what a target is to know'
        for form in forms_of(ip, source.local[1]):
            assert form not in told, form
    relay.get('/metrics')
    assert relay.stop() == 0
    assert ip not in relay.log() and str(source.local[1]) not in relay.log()


def test_descord_20_one_of_two_relays_dies(start, placement):
    one, two = start(preset='descord'), start(preset='descord')
    key = Key()
    homes = [relay.connect(key, placement.target) for relay in (one, two)]
    for session in homes:
        assert reserve(session).status == OK
    one.kill()
    assert homes[0].wait_dead(5)
    with two.connect(shard=placement.source) as source:
        near, far = join(source, homes[1])
        near.send(b'still reachable')
        assert far.recv(15) == b'still reachable'
    homes[1].close()


def churn(relay, seconds, clients, seed):
    """Clients that come, reserve, call each other and go, in any order and at any moment."""
    rng, end, targets, lock = random.Random(seed), time.monotonic() + seconds, {}, threading.Lock()
    counts = {'connects': 0, 'circuits': 0, 'bytes': 0}

    def act(session, mine):
        dice = mine.random()
        if dice < 0.25:
            if reserve(session).status == OK:
                with lock:
                    targets[session.key.peer_id] = session
        elif dice < 0.8 and targets:
            with lock:
                peer = mine.choice(list(targets))
            answer, stream = dial(session, peer)
            if answer.status == OK:
                counts['circuits'] += 1
                stream.send(mine.randbytes(mine.choice([1, 1000, 100000])))
                end_of = mine.random()
                if end_of < 0.4:
                    stream.close_write()
                elif end_of < 0.8:
                    stream.reset()
        elif dice < 0.95:
            session.ping(mine.randrange(1 << 32))
        else:
            raise Closed('had enough')

    def live(number):
        mine = random.Random(rng.random() + number)
        while time.monotonic() < end:
            session = auto_stop(relay.connect(), lambda stream: setattr(stream, 'sink', len))
            counts['connects'] += 1
            try:
                while time.monotonic() < end:
                    act(session, mine)
                    time.sleep(mine.random() * 0.2)
            except (Closed, TimeoutError, WireError):
                pass
            finally:
                with lock:
                    targets.pop(session.key.peer_id, None)
                session.close(reset=mine.random() < 0.3)
    threads = [threading.Thread(target=live, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    rss = []
    while time.monotonic() < end:
        time.sleep(max(1.0, seconds / 30))
        rss.append(relay.rss_kib())
    for thread in threads:
        thread.join(60)
    return counts, rss


@pytest.mark.parametrize('seconds', [20, pytest.param(600, marks=pytest.mark.long)])
def test_descord_22_counters_return_to_zero_after_churn(start, seconds):
    """Many clients at once land on both shards by themselves."""
    relay = start('--max-circuits-per-peer', 32, preset='descord')
    counts, rss = churn(relay, seconds * 1, 100, seed=22)
    assert counts['circuits'] > 10 * seconds / SLOW and counts['connects'] > 100, counts

    def empty():
        told = relay.metrics()
        return all(told[name] == 0 for name in ('relay_active_circuits', 'relay_connected_peers',
                                                'relay_peers_with_circuits'))
    relay.until(empty, 10, 'empty tables')
    assert relay.conns() == [] and relay.circuits() == []
    third = len(rss) // 3
    assert rss[-1] <= 1.25 * max(rss[:third]) + 4096, rss


def test_descord_25_an_unknown_protocol_is_declined_and_the_connection_stays(relay, placement):
    with relay.connect(shard=placement.target) as session:
        for protocol in ('/meshsub/1.1.0', '/meshsub/1.2.0', '/ipfs/kad/1.0.0', '/floodsub/1.0.0'):
            with pytest.raises(NotAvailable):
                session.open(protocol, style='data')
        lazy = session.stream('data')  # gossipsub sends its subscriptions right behind the name
        with pytest.raises((NotAvailable, Closed)):
            lazy.negotiate('/meshsub/1.1.0', b'\x0c\x0a\x0a\x08\x01\x12\x06topics')
        assert session.alive()
        assert reserve(session).status == OK


