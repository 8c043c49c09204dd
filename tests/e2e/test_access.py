"""Who may come in, from where, how many and for how long: access lists, limits on connections, the
PROXY protocol, idle and vanished peers, closed terminals (libp2p.md §11.5, §11.6; presets.md;
haproxy: doc/proxy-protocol.txt)."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

import rawp2p
from circuit import auto_stop, dial, get_identify, join, reserve
from relay import SLOW, Relay, next_ip
from transport import Closed
from wire import DENIED, OK, REFUSED, Identify, Key, WireError, maddr_text, read_uv

NOT_LET_IN = (OSError, Closed, WireError, TimeoutError)


def may_reserve(relay, key=None, source=None, shard=None):
    try:
        with relay.connect(key, shard, source) as session:
            return reserve(session).status == OK
    except NOT_LET_IN:
        return False


# ---- access lists -------------------------------------------------------------------------------

def test_a_denied_network_is_not_served(start, placement):
    relay = start('--deny', '127.90.0.0/16', '--deny', '127.91.0.7')
    assert not may_reserve(relay, source='127.90.3.4')
    assert not may_reserve(relay, source='127.91.0.7')
    assert may_reserve(relay, source='127.91.0.8')
    assert may_reserve(relay, shard=placement.target)


def test_with_an_allow_list_nobody_else_is_served(start, placement):
    """Peers and networks must both match where both are named, as in go's relay daemon."""
    friend, stranger = Key(), Key('secp256k1')
    relay = start('--allow', friend.text, '--allow', '127.92.0.0/16')
    assert may_reserve(relay, friend, '127.92.1.1')
    assert not may_reserve(relay, stranger, '127.92.1.1')
    assert not may_reserve(relay, friend, '127.93.1.1')


def test_a_denied_peer_is_no_target_either(start, placement, tmp_path):
    """Denied while its reservation stands, by a reload."""
    config, key = tmp_path / 'sluice.yaml', Key()
    config.write_text('deny: []\n')
    relay = start('--config', config)
    with relay.connect(key, placement.target) as target, \
            relay.connect(shard=placement.source) as source:
        assert reserve(target).status == OK
        auto_stop(target)
        assert dial(source, key.peer_id)[0].status == OK
        config.write_text('deny:\n  - %s\n' % key.text)
        relay.proc.send_signal(signal.SIGHUP)
        relay.until(lambda: 'access lists are in force' in relay.log(), 5, 'the new list')
        assert dial(source, key.peer_id)[0].status == DENIED


def test_reload_changes_the_lists_without_a_pause(start, placement, tmp_path):
    config = tmp_path / 'sluice.yaml'
    config.write_text('deny:\n  - 127.94.0.0/16\n')
    relay = start('--config', config)
    assert not may_reserve(relay, source='127.94.1.1')
    with relay.connect(shard=placement.target) as target, \
            relay.connect(shard=placement.source) as source:
        reserve(target)
        near, far = join(source, target)
        config.write_text('deny:\n  - 127.95.0.0/16\n')
        relay.proc.send_signal(signal.SIGHUP)
        relay.until(lambda: may_reserve(relay, source='127.94.1.1'), 5, 'the new list')
        assert not may_reserve(relay, source='127.95.1.1')
        near.send(b'undisturbed')
        assert far.recv(11) == b'undisturbed'


# ---- limits on connections ----------------------------------------------------------------------

def admitted(relay, count, key=None, source=None):
    """The sessions that got through, of `count` attempts."""
    sessions = []
    for _ in range(count):
        with contextlib.suppress(*NOT_LET_IN):
            session = relay.connect(key, source=source)
            if session.alive():
                sessions.append(session)
    return sessions


@pytest.mark.parametrize('flag, same', [
    ('--max-conns-per-peer', {'key': 'one'}), ('--max-conns-per-ip', {'source': '127.96.1.1'}),
    ('--max-conns', {})])
def test_connections_are_limited_exactly(start, flag, same):
    relay = start(flag, 5)
    key = Key() if 'key' in same else None
    sessions = admitted(relay, 8, key, same.get('source'))
    assert len(sessions) == 5
    if flag != '--max-conns':
        other = admitted(relay, 1)
        assert len(other) == 1, 'others are not concerned'
        other[0].close()
    sessions.pop().close()

    def another():
        sessions.extend(admitted(relay, 1, key, same.get('source')))
        return len(sessions) == 5
    relay.until(another, 5, 'the freed place')
    for session in sessions:
        session.close()


def test_connections_of_a_subnet_are_limited(start):
    relay = start('--max-conns-per-subnet', 3)
    sessions = []
    for host in range(1, 7):
        sessions += admitted(relay, 1, source='127.97.5.%d' % host)
    assert len(sessions) == 3
    neighbours = admitted(relay, 1, source='127.97.6.1')
    assert len(neighbours) == 1
    for session in sessions + neighbours:
        session.close()


@pytest.mark.parametrize('flag, ips', [('--max-reservations-per-ip', ['127.98.1.1'] * 4),
                                       ('--max-reservations-per-subnet',
                                        ['127.98.2.%d' % i for i in range(1, 5)])])
def test_reservations_of_an_address_are_limited(start, placement, flag, ips):
    relay = start(flag, 3)
    sessions = [relay.connect(source=ip) for ip in ips]
    assert [reserve(s).status for s in sessions] == [OK, OK, OK, REFUSED]
    with relay.connect(shard=placement.target) as other:
        assert reserve(other).status == OK
    sessions[0].close()
    relay.until(lambda: reserve(sessions[3]).status == OK, 3, 'the freed slot')
    for session in sessions:
        session.close()


# ---- PROXY protocol, version 2 ------------------------------------------------------------------

SIGNATURE = b'\r\n\r\n\x00\r\nQUIT\n'


def proxy2(src, dst, sport, dport, command=1, tail=b''):
    packed = [socket.inet_pton(socket.AF_INET6 if ':' in a else socket.AF_INET, a)
              for a in (src, dst)]
    family = 0x21 if ':' in src else 0x11
    body = b''.join(packed) + struct.pack('>HH', sport, dport) + tail
    return SIGNATURE + struct.pack('>BBH', 0x20 | command, family, len(body)) + body


BALANCER = '127.99.0.9'


def observed(session):
    data = get_identify(session)
    return maddr_text(Identify(data[read_uv(data)[1]:]).observed)


@pytest.mark.parametrize('src, want', [('198.51.100.7', '/ip4/198.51.100.7/tcp/4444'),
                                       ('2001:db8::7', '/ip6/2001:db8::7/tcp/4444'),
                                       ('::ffff:198.51.100.8', '/ip4/198.51.100.8/tcp/4444')])
def test_proxy_the_header_names_the_client(start, src, want):
    relay = start('--proxy-from', '127.99.0.0/24', '--deny', '203.0.113.0/24')
    tcp = relay.tcp(source=BALANCER)
    dst = '::1' if ':' in src else '127.0.0.1'
    head = proxy2(src, dst, 4444, 4001, tail=b'\x04\x00\x03abc')
    tcp.send_slowly(head, 5)
    with rawp2p.connect(None, tcp=tcp) as session:
        assert observed(session) == want
        assert any('4444' in row['remote'] for row in relay.conns())
        assert BALANCER not in json.dumps(relay.conns())


def test_proxy_limits_and_lists_count_the_client(start):
    relay = start('--proxy-from', BALANCER, '--deny', '203.0.113.0/24', '--max-conns-per-ip', 2)

    def through(src):
        tcp = relay.tcp(source=BALANCER)
        tcp.send(proxy2(src, '127.0.0.1', 1, 2))
        return rawp2p.connect(None, tcp=tcp)
    with pytest.raises(NOT_LET_IN):
        through('203.0.113.5')
    with through('198.51.100.1'), through('198.51.100.1'), through('198.51.100.2'):
        with pytest.raises(NOT_LET_IN):
            through('198.51.100.1')


def test_proxy_local_is_the_balancers_own_check(start):
    relay = start('--proxy-from', BALANCER)
    tcp = relay.tcp(source=BALANCER)
    tcp.send(proxy2('198.51.100.7', '127.0.0.1', 1, 2, command=0))
    with rawp2p.connect(None, tcp=tcp) as session:
        assert observed(session).startswith('/ip4/%s/' % BALANCER)


def test_proxy_only_the_balancer_is_believed(start):
    relay = start('--proxy-from', BALANCER)
    stranger = relay.tcp(source=next_ip())
    stranger.send(proxy2('198.51.100.7', '127.0.0.1', 1, 2))
    assert stranger.closed_within(2) is not None
    with relay.connect(source=next_ip()) as session:  # who needs none
        assert session.alive()
    for junk in (b'\x13/multistream/1.0.0\n', SIGNATURE[:-1] + b'\r',
                 b'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n',
                 SIGNATURE + b'\x21\x11\xff\xff' + bytes(100), SIGNATURE + b'\x31\x11\x00\x0c'):
        tcp = relay.tcp(source=BALANCER)
        tcp.send(junk)
        assert tcp.closed_within(11 * SLOW) is not None, junk


# ---- idle and vanished --------------------------------------------------------------------------

def test_an_idle_connection_is_closed_one_with_a_purpose_is_not(start, placement):
    relay = start('--idle-timeout-secs', 2)
    with relay.connect(shard=placement.target) as idle, \
            relay.connect(shard=placement.target) as reserved, \
            relay.connect(shard=placement.source) as source:
        reserve(reserved)
        near, far = join(source, reserved)
        began = time.monotonic()
        assert idle.wait_dead(5 * SLOW)
        assert 1.8 <= time.monotonic() - began <= 4 * SLOW
        assert idle.goaway == 0, 'an orderly end'
        time.sleep(3)
        near.send(b'still here')
        assert far.recv(10) == b'still here'
        near.reset()
        assert source.wait_dead(5 * SLOW), 'its circuit was its purpose'
        assert reserved.alive()


VANISH = """
import subprocess, sys, time
sys.path.insert(0, %r)
import circuit, relay, wire
live = relay.Relay(sys.argv[1]).start()
target = live.connect()
assert circuit.reserve(target).status == wire.OK
subprocess.run(['ip', 'link', 'set', 'lo', 'down'], check=True)
began = time.monotonic()
while 'reservation_closed' not in live.log() and time.monotonic() - began < 100:
    time.sleep(0.5)
print('gone after %%.0f s' %% (time.monotonic() - began))
live.proc.kill()
"""


def can_unshare():
    return subprocess.run(['unshare', '-Urn', 'ip', 'link', 'set', 'lo', 'up'],
                          capture_output=True).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not can_unshare(), reason='needs a network namespace: allow unshare -Urn '
                    '(sysctl kernel.unprivileged_userns_clone=1) and install iproute2')
def test_a_vanished_peer_is_gone_in_90_s(tmp_path):
    """Its packets stop, without FIN or RST: the whole network of a namespace goes down."""
    here = str(pathlib.Path(__file__).resolve().parent)
    done = subprocess.run(
        ['unshare', '-Urn', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', sys.executable,
         '-c', VANISH % here, str(tmp_path)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    seconds = int(done.stdout.split()[2])
    assert 30 <= seconds <= 90, done.stdout


# ---- the terminal -------------------------------------------------------------------------------

def cpu_ticks(pid):
    fields = pathlib.Path('/proc/%d/stat' % pid).read_text().rsplit(') ', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_a_closed_terminal_neither_stops_nor_spins_it(tmp_path):
    relay = Relay(tmp_path, '--log-level', 'debug')
    read, write = os.pipe()
    proc = subprocess.Popen(relay.argv, stdout=subprocess.PIPE, stderr=write, text=True)
    try:
        os.close(write)
        relay.proc = proc
        for line in proc.stdout:
            relay.lines.append(line.strip())
            if relay._ready():
                break
        os.close(read)
        proc.stdout.close()
        for _ in range(20):
            with relay.connect() as session:
                assert reserve(session).status == OK
        before = cpu_ticks(proc.pid)
        time.sleep(1)
        assert cpu_ticks(proc.pid) - before <= 20, 'it spins'
        with relay.connect() as session:
            assert session.alive()
    finally:
        proc.terminate()
        assert proc.wait(10 * SLOW) == 0


def test_a_stuck_terminal_stalls_nobody(tmp_path):
    """Nobody reads the log: lines are dropped, circuits are not."""
    relay = Relay(tmp_path, '--log-level', 'trace')
    read, write = os.pipe()
    proc = subprocess.Popen(relay.argv, stdout=subprocess.PIPE, stderr=write, text=True)
    try:
        os.close(write)
        relay.proc = proc
        for line in proc.stdout:
            relay.lines.append(line.strip())
            if relay._ready():
                break
        for _ in range(300):  # far more than a pipe holds
            with relay.connect() as session:
                assert reserve(session).status == OK
        with relay.connect() as source, relay.connect() as target:
            reserve(target)
            auto_stop(target)
            assert dial(source, target.key.peer_id)[0].status == OK
    finally:
        proc.terminate()
        assert proc.wait(20 * SLOW) == 0
        os.close(read)
