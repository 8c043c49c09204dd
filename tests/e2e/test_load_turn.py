"""tools/load_turn, the load generator: every mode against the daemon, whose counters must say the
same; and against relays that spoil what they carry, for a generator that cannot fail shows nothing."""

import json
import socket
import subprocess
import threading
import time

import pytest

from relay import BUILD
from turnd import SECRET, Turnd

LOAD = BUILD / 'tools' / 'load-turn'
EVERY = 50  # of spoilt datagrams


def load(at, *args, seconds=0.3, rate=None, **options):
    """The generator's exit status, and what it said: as JSON, or on stderr."""
    command = [LOAD, '--to', at if isinstance(at, str) else '%s:%d' % at, '--json', '--quiet', '--sleep',
               '--duration', seconds, '--warm', 0.05, *args]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, timeout=60)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, done.stderr


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    turnd = Turnd(tmp_path_factory.mktemp('turn'), listen=('127.0.0.1:0', '[::1]:0'),
                  allow=('127.0.0.0/8', '127.0.0.1/32', '::1/128')).start()
    yield turnd
    turnd.finish()


def through(server, *args, **options):
    code, told = load(server.at, '--secret', SECRET, *args, **options)
    assert code == 0, told
    assert told['ok'] and told['mismatches'] == told['doubles'] == told['failed'] == 0, told
    server.relay.until(lambda: server.relay.metrics()['sluice_turn_allocations'] == 0, 5,
                       'no allocation is left')
    return told


@pytest.mark.sanitize
@pytest.mark.parametrize('args', [
    (), ('--train', 16, '--size', 120), ('--train', 54), ('--train', 64, '--size', 120),
    ('--train', 4, '--sink', 'plain'), ('--train', 4, '--plain-senders'), ('--size', 20),
    ('--mode', 'send', '--train', 16, '--size', 333),
    ('--mode', 'send', '--direction', 'both', '--train', 4, '--size', 121),
    ('--direction', 'down', '--train', 16), ('--direction', 'both', '--train', 4),
    ('--echo', '--train', 16, '--size', 500), ('--echo', '--mode', 'send', '--size', 99),
    ('--client-to-client', '--allocations', 6, '--train', 8),
    ('--allocations', 100, '--peers', 20, '--direction', 'both', '--train', 4),
    ('--transport', 'tcp', '--direction', 'both', '--train', 16, '--size', 121),
    ('--transport', 'tcp', '--echo', '--mode', 'send', '--size', 121),
    ('--sha256', '--train', 4), ('--bind', '127.0.0.2,127.0.0.3', '--allocations', 5),
], ids=lambda args: ' '.join(map(str, args)) or 'plain')
def test_every_datagram_arrives(server, args):
    told = through(server, '--lossless', *args)
    assert told['lost'] == 0 and told['received'] > 100
    assert told['latency_us']['n'] == told['received']
    assert told['relayed'] == told['received'] * 2 if '--client-to-client' in args else True


def counted(server):
    """Datagrams to peers, and from peers."""
    metrics = server.relay.metrics()
    return [metrics['sluice_turn_datagrams_total{side="peer",direction="%s"}' % way]
            for way in ('out', 'in')]


@pytest.mark.parametrize('args, ways', [
    (('--train', 16), (1, 0)), (('--direction', 'down', '--train', 16), (0, 1)),
    (('--echo', '--mode', 'send'), (1, 1)), (('--transport', 'tcp'), (1, 0)),
    (('--client-to-client', '--allocations', 2), (1, 1)),
])
def test_the_server_counts_the_same(server, args, ways):
    before = counted(server)
    told = through(server, '--lossless', *args)
    assert told['total_received'] == told['total_sent'] > 100
    assert [b - a for a, b in zip(before, counted(server))] == [
        way * told['total_sent'] for way in ways]


def test_long_term_credentials(server):
    code, told = load(server.at, '--user', 'user', '--password', 'pass', '--realm', 'realm')
    assert code == 0, told


def test_ipv6(server):
    port = next(port for host, port in server.relay.turns if host == '[::1]')
    code, told = load('[::1]:' + port, '--secret', SECRET, '--lossless')
    assert code == 0 and told['received'] > 100, told


def test_a_rate_is_kept(server):
    told = through(server, '--rate', 2000, '--allocations', 10, '--size', 100, seconds=1)
    assert 1800 <= told['datagrams_per_s'] <= 2200, told


@pytest.mark.sanitize
def test_allocations_are_made_and_given_back(server):
    before = server.relay.metrics()['sluice_turn_allocations_opened_total']
    for args in (), ('--fresh', '--bind', '127.0.1.1,127.0.1.2'):
        told = through(server, '--alloc-rate', '--lives', 300, '--slots', 20, *args, seconds=10)
        assert told['lives'] >= 300
        made = server.relay.metrics()['sluice_turn_allocations_opened_total'] - before
        assert made >= told['lives'], (made, told)
        before += made


def test_idle_allocations_stand_and_are_weighed(server):
    pid = server.relay.proc.pid
    told = through(server, '--idle', '--steps', '50,200', '--settle', 0.1, '--server-pid', pid)
    assert [m['allocations'] for m in told['memory']] == [0, 50, 200]
    assert all(m['rss_kib'] > 1000 for m in told['memory'])


@pytest.mark.sanitize
@pytest.mark.parametrize('way', ['up', 'down', 'both'])
@pytest.mark.parametrize('streams', [1, 5])
def test_streams(server, way, streams):
    told = through(server, '--tcp-relay', '--allocations', streams, '--direction', way)
    assert told['bytes'] > 1 << 20 and told['lost'] == 0


# ---- what must fail ----------------------------------------------------------------------------


@pytest.mark.parametrize('args, why', [
    (('--secret', 'another'), '401'),
    (('--user', 'user', '--password', 'wrong'), '401'),
    (('--secret', SECRET, '--realm', 'elsewhere'), '401'),
])
def test_a_server_that_refuses_is_a_failure(server, args, why):
    code, said = load(server.at, *args)
    assert code == 1 and why in said, said


def test_nobody_there_is_a_failure():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        code, said = load(s.getsockname(), '--secret', 's', '--transport', 'tcp')
    assert code == 1 and 'load-turn: ' in said, said


@pytest.mark.parametrize('args', [
    (), ('--secret', 's', '--train', 64), ('--secret', 's', '--train', 54, '--mode', 'send'),
    ('--secret', 's', '--size', 19), ('--secret', 's', '--allocations', 10001),
    ('--secret', 's', '--client-to-client', '--allocations', 3), ('--bare', '--echo'),
    ('--secret', 's', '--echo', '--direction', 'down'), ('--secret', 's', '--bind', '::1'),
    ('--secret', 's', '--train', '+4'), ('--secret', 's', '--mode', 'chan'),
], ids=lambda args: ' '.join(map(str, args)) or 'nothing')
def test_options_that_cannot_be(args):
    code, said = load('127.0.0.1:1', *args)
    assert code == 2 and 'load-turn' in said, said


class Spoiler(threading.Thread):
    """What bench/bare/turn_bare.c does, with one datagram in EVERY treated badly; or a stream, with
    one byte."""

    def __init__(self, how, stream=False):
        super().__init__(daemon=True)
        self.how, self.stream = how, stream
        self.near = socket.socket(type=socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        self.near.bind(('127.0.0.1', 0))
        if stream:
            self.near.listen()
        else:
            self.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self.at = self.near.getsockname()
        self.start()

    def run(self):
        self.streams() if self.stream else self.datagrams()

    def datagrams(self):
        sink, held, n = None, None, 0
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.bind(('127.0.0.1', 0))
            while True:
                data, source = self.near.recvfrom(65536)
                if data == b'BARESINK\0':
                    sink = source
                    far.sendto(data, sink)
                    continue
                if data == b'end':
                    return
                n += 1
                bad = self.how if n % EVERY == 0 else ''
                if bad == 'hold':
                    held = data
                elif bad != 'drop':
                    if bad == 'flip':
                        data = data[:-1] + bytes([data[-1] ^ 1])
                    far.sendto(data[:-1] if bad == 'cut' else data, sink)
                    if bad == 'double':
                        far.sendto(data, sink)
                    if held and n % EVERY == 3:
                        far.sendto(held, sink)
                        held = None

    def streams(self):
        client, _ = self.near.accept()
        hello = client.recv(24, socket.MSG_WAITALL)
        count, began, silent = 0, time.monotonic(), False
        with socket.create_connection((socket.inet_ntoa(hello[16:20]),
                                       int.from_bytes(hello[20:22], 'big'))) as far:
            while data := client.recv(65536):
                count += 1
                if count == 10 and self.how == 'flip':
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if count == 10 and self.how == 'drop':
                    data = data[:-1]
                late = time.monotonic() - began > 0.2  # something has arrived by then
                if late and self.how == 'end':
                    break
                silent |= late and self.how == 'silent'
                if not silent:
                    far.sendall(data)
        client.close()

    def finish(self):
        if not self.stream:
            with socket.socket(type=socket.SOCK_DGRAM) as s:
                s.sendto(b'end', self.at)
        self.join(5)
        self.near.close()


@pytest.mark.parametrize('how, lossless, code, count', [
    ('', True, 0, None),
    ('flip', False, 1, 'mismatches'),
    ('cut', False, 1, 'mismatches'),
    ('double', False, 1, 'doubles'),
    ('drop', False, 0, 'lost'),
    ('drop', True, 1, 'lost'),
    ('hold', True, 0, 'reordered'),
])
def test_a_spoilt_datagram_is_noticed(how, lossless, code, count):
    relay = Spoiler(how)
    got, told = load(relay.at, '--bare', '--rate', 5000, '--size', 200,
                     *(['--lossless'] if lossless else []))
    relay.finish()
    counts = {k: told[k] for k in ('mismatches', 'doubles', 'lost', 'reordered')}
    assert got == code and told['ok'] == (code == 0), told
    assert told['received'] > 500
    for name, n in counts.items():
        # What was changed has not arrived either.
        assert n > 10 if name == count or (name, count) == ('lost', 'mismatches') else n == 0, counts


@pytest.mark.parametrize('how', ['', 'flip', 'drop', 'end', 'silent'])
def test_a_spoilt_stream_is_noticed(how):
    relay = Spoiler(how, stream=True)
    code, told = load(relay.at, '--bare', '--tcp-relay')
    relay.finish()
    assert code == (1 if how else 0), told


# ---- trains --------------------------------------------------------------------------------------


class Bare:
    """bench/bare/turn_bare.c"""

    def __init__(self, kind):
        self.proc = subprocess.Popen([str(BUILD / 'bench' / 'bench-turn'), kind, '127.0.0.1', '0'],
                                     stdout=subprocess.PIPE, text=True)
        self.at = self.proc.stdout.readline().split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.communicate()


@pytest.mark.parametrize('loop, args, per_read', [
    ('gro', (), 16), ('gro', ('--sink', 'plain'), 1), ('gro', ('--plain-senders',), 1),
    ('plain', (), 1),
])
def test_trains_leave_and_arrive_as_trains(loop, args, per_read):
    """A bare loop does not merge, so what comes out is what went in; and one that takes no trains
    takes them apart."""
    with Bare(loop) as bare:
        code, told = load(bare.at, '--bare', '--train', 16, '--size', 120, '--lossless', *args)
    assert code == 0, told
    assert round(told['received'] / told['reads']) == per_read, told


def test_streams_through_a_bare_splice_loop():
    with Bare('splice') as bare:
        code, told = load(bare.at, '--bare', '--tcp-relay', '--allocations', 3, '--direction', 'both')
    assert code == 0 and told['bytes'] > 1 << 20, told


def test_the_same_seed_sends_the_same_bytes():
    """To a sink of our own, which answers as a bare loop does."""
    def first(seed):
        with socket.socket(type=socket.SOCK_DGRAM) as s:
            s.bind(('127.0.0.1', 0))
            s.settimeout(5)
            proc = subprocess.Popen(
                [str(LOAD), '--to', '127.0.0.1:%d' % s.getsockname()[1], '--bare', '--quiet', '--seed',
                 str(seed), '--duration', '0.05', '--warm', '0', '--sleep', '--size', '300'])
            data, source = s.recvfrom(2000)
            assert data == b'BARESINK\0'
            s.sendto(data, source)
            data = s.recvfrom(2000)[0]
            assert proc.wait(10) == 1  # nothing came back
            return data[:12], data[20:]  # but for the time in it

    assert first(1) == first(1) != first(2)
