"""tools/load_dig, the load generator: every mode against the daemon, whose counters must say the same;
and against relays that spoil what they carry, for a generator that cannot fail shows nothing."""

import json
import socket
import subprocess
import threading

import pytest

from digd import Digd
from relay import BUILD, Relay

LOAD = BUILD / 'tools' / 'load-dig'
BARE = BUILD / 'bench' / 'bench-dig'
COUNTS = ('lost', 'gaps', 'mismatches', 'doubles', 'errors', 'failed')


def load(at, *args, seconds=0.3):
    """The generator's exit status, and what it said: as JSON, or on stderr."""
    load.seed += 1  # other ids each time
    command = [LOAD, '--to', '%s:%d' % at, '--json', '--quiet', '--sleep', '--seed', load.seed,
               '--duration', seconds, '--warm', 0.05, *args]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, timeout=120)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, done.stderr


load.seed = 0


class Counted(Digd):
    """In the daemon's own spelling, where the HTTP door tells what was counted."""

    def __init__(self, directory, *flags):
        Relay.__init__(self, directory, '--listen-p2p', 'off', '--listen-turn', 'off', '--listen-dig',
                       '127.0.0.1:0', '--dig-messages-per-conn', 0, *flags, listen=None, drain=0)
        self.doors, self.clients = {}, []

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with Counted(tmp_path_factory.mktemp('dig')) as counted:
        yield counted


def through(server, *args, **options):
    code, told = load(server.at, *args, **options)
    assert code == 0, told
    assert told['ok'] and not any(told[c] for c in COUNTS), told
    server.settle(lambda: server.metrics()['sluice_dig_connections'] == 0)
    return told


@pytest.mark.sanitize
@pytest.mark.parametrize('args', [
    (), ('--window', 1), ('--window', 64, '--connections', 4), ('--size', 1), ('--size', 40000),
    ('--connections', 40, '--per-network', 4), ('--rate', 2000), ('--mode', 'ping'),
    ('--mode', 'broadcast', '--connections', 8), ('--mode', 'peers', '--connections', 100),
    ('--mode', 'peers', '--connections', 50, '--requesters', 50),
], ids=lambda args: ' '.join(map(str, args)) or 'plain')
def test_every_message_arrives(server, args):
    told = through(server, *args)
    assert told['received'] > 50 and told['total_received'] >= told['received']
    assert told['latency_us']['n'] == told['received']


@pytest.mark.parametrize('args, name, weight', [
    ((), 'sluice_dig_relayed_total', 1), (('--size', 100), 'sluice_dig_relayed_bytes_total', 100),
    (('--mode', 'broadcast'), 'sluice_dig_broadcasts_total', 1),
])
def test_the_relay_counts_the_same(server, args, name, weight):
    before = server.metrics()[name]
    told = through(server, *args)
    assert server.metrics()[name] - before == told['total_sent'] * weight, told


def test_turns_that_send_are_timed(server):
    def turns():
        return sum(v for k, v in server.metrics().items() if k.startswith('sluice_sojourn_'))

    before = turns()
    through(server, '--window', 1, '--connections', 2)
    assert turns() - before > 50


@pytest.mark.sanitize
def test_everybody_hears_of_everybody_who_came_later(server):
    told = through(server, '--mode', 'join', '--connections', 60, '--join-secs', 0.3)
    assert told['news'] == 60 * 59 / 2 and told['join_s'] >= 0.25, told


def test_idle_connections_stand_and_are_weighed(server):
    told = through(server, '--mode', 'idle', '--steps', '20,120', '--settle', 0.1, '--server-pid',
                   server.proc.pid)
    assert [m['connections'] for m in told['memory']] == [0, 20, 120]
    assert all(m['rss_kib'] > 1000 for m in told['memory'])


def test_cpu_is_that_of_the_process_named(server):
    before = server.cpu_ns()
    told = through(server, '--server-pid', server.proc.pid)
    spent = (server.cpu_ns() - before) / 1e9
    assert 0 < told['server_cpu_s'] <= spent
    assert told['cpu_us_per_message'] == pytest.approx(
        1e6 * (told['server_cpu_s'] + told['softirq_cpu_s']) / told['received'], rel=0.01)


@pytest.mark.sanitize
def test_over_tls(tmp_path):
    cert, key = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
                    '-nodes', '-subj', '/CN=relay', '-keyout', key, '-out', cert], check=True,
                   capture_output=True)
    with Counted(tmp_path, '--dig-tls-cert', cert, '--dig-tls-key', key) as server:
        assert through(server, '--tls', '--connections', 8)['received'] > 50
        assert server.metrics()['sluice_dig_tls_handshakes_total'] == 8


# ---- what must fail ----------------------------------------------------------------------------


class Bare:
    """bench/bare/dig_bare.c"""

    def __init__(self, *words):
        kind, *spoil = words
        self.proc = subprocess.Popen([str(BARE), kind, '127.0.0.1', '0', *spoil],
                                     stdout=subprocess.PIPE, text=True)
        host, port = self.proc.stdout.readline().split()[-1].split(':')
        self.at = host, int(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.communicate()


@pytest.mark.parametrize('spoil, count', [
    (None, None), ('flip', 'mismatches'), ('from', 'mismatches'), ('drop', 'lost'),
    ('double', 'doubles'), ('late', 'doubles'),
])
def test_a_spoilt_message_is_noticed(spoil, count):
    with Bare('bare', *filter(None, [spoil])) as bare:
        code, told = load(bare.at, '--rate', 20000, '--patience', 0.5)
    assert code == (1 if spoil else 0) and told['ok'] == (code == 0), told
    assert told['received'] > 500
    if count:
        assert told[count] > 10, told
    else:
        assert not any(told[c] for c in COUNTS), told


def test_bytes_that_pass_as_they_are():
    with Bare('null') as bare:
        code, told = load(bare.at, '--null')
        assert code == 0 and told['received'] > 500, told
        code, told = load(bare.at)  # a relay has to unmask
    assert code == 1, told


def test_a_relay_that_refuses_is_a_failure(tmp_path):
    with Counted(tmp_path, '--dig-max-registrations-per-ip', 1) as server:
        code, said = load(server.at, '--connections', 2)
    assert code == 1 and 'register' in said, said


def test_a_member_that_is_not_of_the_list_is_noticed(server):
    with server.peer(net='bench-0'):
        code, told = load(server.at, '--mode', 'peers', '--connections', 10, '--patience', 0.5)
    assert code == 1 and told['mismatches'] > 0, told


def test_nobody_there_is_a_failure():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        code, said = load(s.getsockname())
    assert code == 1 and 'load-dig: ' in said, said


def test_what_is_no_relay_is_a_failure():
    with socket.create_server(('127.0.0.1', 0)) as door:
        def answer():
            conn, _ = door.accept()
            with conn:
                conn.recv(1000)
                conn.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
                conn.recv(1000)
        threading.Thread(target=answer, daemon=True).start()
        code, said = load(door.getsockname(), '--connections', 2)
    assert code == 1 and 'not upgraded' in said, said


@pytest.mark.parametrize('args', [
    ('--connections', 3), ('--connections', 4, '--per-network', 3), ('--connections', 20001),
    ('--mode', 'relays'), ('--mode', 'broadcast', '--connections', 1), ('--size', 0),
    ('--mode', 'peers', '--connections', 5, '--requesters', 6), ('--null', '--mode', 'ping'),
    ('--null', '--tls'), ('--window', '+4'), ('--steps', '5,4'),
], ids=lambda args: ' '.join(map(str, args)))
def test_options_that_cannot_be(args):
    code, said = load(('127.0.0.1', 1), *args)
    assert code == 2 and 'load-dig' in said, said
