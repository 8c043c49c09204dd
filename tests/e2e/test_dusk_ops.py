"""dusk.md §13, checks 51-64, on the dusk preset: its TURN door as a Dusk client finds it, and what
an operator sees and keeps. What other files show for every preset bears the number there
(`grep -rn dusk_58 tests`); 51's bytes are in tests/unit/test_stun_build.c."""

import os
import pathlib
import re
import signal
import socket
import stat
import struct
import subprocess
import time

import pytest

import rdv
from circuit import join, reserve
from relay import SLOW, SLUICE, Relay
from turn import (ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, LIFETIME, NONCE,
                  REFRESH, REQUEST, REQUESTED_TRANSPORT, UDP_TRANSPORT, Client, TcpPath, UdpPath,
                  UdpPeer, attr, ephemeral, message, peer, type_of)
from turnd import Clock, own_ip
from wire import OK, Key, base58

SECRET = 'a secret of the operator'
ALICE = '12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB'
KEY_FILE = bytes.fromhex('08011240' + ''.join('%02x' % i for i in range(32)) +
                         '03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8')


@pytest.fixture
def turn(start):
    """Starts a dusk relay with TURN; clients by path, as one peer unless another is named."""
    clients = []

    class Door:
        def __init__(self, *flags, allow=True, clock=None, **env):
            options = ['--turn-allow-peer', '127.0.0.0/8'] if allow else []
            env = dict(clock.env if clock else {}, DUSK_TURN_SECRET=SECRET, **env)
            # one shard where time is moved: who sleeps does not see it
            self.relay = start('--listen-p2p', '127.0.0.1:0', '--listen-turn', '127.0.0.1:0',
                               *options, *flags, preset='dusk', listen=None, env=env,
                               shards=1 if clock else 2)

        def client(self, kind='udp', who=ALICE, ttl=86400):
            user, password = ephemeral(SECRET, ttl, who)
            path = {'udp': UdpPath, 'tcp': TcpPath}[kind](self.relay.turn)
            clients.append(Client(path, user=user, password=password))
            return clients[-1]
    yield Door
    for client in clients:
        client.close()


# ---- 52 to 60: TURN -----------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_dusk_52_dusk_53_a_whole_call(turn, kind):
    door = turn()
    client = door.client(kind)
    client.challenge()
    assert client.realm == 'duskchat.app'
    assert client.allocate().granted.lifetime == 600
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        client.send(far.at, b'by Send')
        data, origin = far.recv()
        assert data == b'by Send' and origin == client.relayed
        far.send(b'by Data', client.relayed)
        assert client.data() == (far.at, b'by Data')
        assert client.bind_channel(0x4001, far.at).code == 0
        client.send_channel(0x4001, b'abc')  # three bytes: padded on a stream
        assert far.recv()[0] == b'abc'
        far.send(b'xyz', client.relayed)
        got = client.data()
        assert (got.number, got.data) == (0x4001, b'xyz')
        assert client.refresh(1200).lifetime == 1200
        assert client.refresh(0).lifetime == 0
    assert client.refresh(600).code == 437, 'it is gone'


def test_dusk_54_names_that_ended_and_old_nonces(turn, tmp_path):
    clock = Clock(tmp_path)
    door = turn(clock=clock)
    late = door.client(ttl=-1)
    late.challenge()
    assert late.ask(ALLOCATE, UDP_TRANSPORT, verify=False).code == 401
    client = door.client()
    client.challenge()
    for nonce in (b'\xff\xfe\x80', 'größer'.encode() * 8, client.nonce[:-1] + b'\xc3'):
        held, client.nonce = client.nonce, nonce
        assert client.ask(ALLOCATE, UDP_TRANSPORT).code == 438
        client.nonce = held
    client.allocate()
    clock.step(601)
    got = client.ask(REFRESH)
    assert got.code == 438 and got.get(NONCE) != client.nonce
    assert client.take(got).ask(REFRESH).code in (0, 437), 'the retry is heard'


def test_dusk_55_padding_of_ones_and_attributes_behind_the_integrity(turn):
    door = turn()
    client = door.client()
    client.challenge()
    names = [attr(*item, pad=b'\xff') for item in client.credentials()]
    assert any(name.endswith(b'\xff') for name in names), 'there is padding to fill'
    got = client.exchange(message(type_of(ALLOCATE, REQUEST), (UDP_TRANSPORT, *names),
                                  key=client.key))
    assert got.code == 0, got
    client = door.client()
    client.challenge()
    got = client.ask(ALLOCATE, UDP_TRANSPORT, tail=[(LIFETIME, struct.pack('!I', 0))])
    assert got.code == 0 and got.lifetime == 600, 'what stands behind the integrity has no meaning'


ROWS = [
    ('allocate again', ALLOCATE, [UDP_TRANSPORT], 437),
    ('no peer', CREATE_PERMISSION, [], 400),
    ('no number', CHANNEL_BIND, [peer('127.9.9.9', 9)], 400),
    ('a bad number', CHANNEL_BIND, [(CHANNEL_NUMBER, b'\x20\0\0\0'), peer('127.9.9.9', 9)], 400),
    ('no peer to bind', CHANNEL_BIND, [(CHANNEL_NUMBER, b'\x40\0\0\0')], 400),
]


def test_dusk_56_errors_by_code(turn):
    """Without their words, which nobody reads, so that no answer is longer than its question by
    much (turn_44). Order of the first answers: turn_25 to turn_31 in test_turn_auth.py."""
    door = turn()
    fresh = door.client()
    fresh.challenge()
    for transport, code in ((132, 442), (None, 400)):
        attrs = [] if transport is None else [(REQUESTED_TRANSPORT, bytes([transport, 0, 0, 0]))]
        assert fresh.request(ALLOCATE, *attrs).code == code
    for method in (REFRESH, CREATE_PERMISSION, CHANNEL_BIND):
        assert fresh.request(method, peer('127.9.9.9', 9)).code == 437
    client = door.client().allocate()
    for what, method, attrs, code in ROWS:
        got = client.request(method, *attrs)
        if what == 'allocate again':
            got = client.ask(method, *attrs)
        assert got.code == code, (what, got)
    assert client.bind_channel(0x4000, ('127.9.9.9', 9)).code == 0
    assert client.bind_channel(0x4000, ('127.9.9.9', 10)).code == 400
    assert client.bind_channel(0x4001, ('127.9.9.9', 9)).code == 400


def test_dusk_57_ten_of_a_peer_and_so_many_in_all(turn):
    door = turn()
    for i in range(10):  # each under a user name of its own
        door.client(ttl=86400 - i).allocate()
    assert door.client(ttl=80000).request(ALLOCATE, UDP_TRANSPORT).code == 486
    assert door.client(who='somebody else').allocate()
    door = turn(DUSK_TURN_MAX_ALLOCATIONS='4')
    for i in range(4):
        door.client(who='peer %d' % i).allocate()
    assert door.client(who='the fifth').request(ALLOCATE, UDP_TRANSPORT).code == 486


@pytest.mark.parametrize('times', [300, pytest.param(20000, marks=pytest.mark.long)])
def test_dusk_58_ports_come_back(turn, tmp_path, times):
    """A freed port rests for two minutes, or, where all do, for a tenth of that (turn_ports.h)."""
    clock = Clock(tmp_path)
    door = turn('--turn-ports', '50000-50099', '--turn-relay-ip', own_ip(),
                DUSK_TURN_MAX_PER_USER='200', clock=clock)
    client = door.client()
    descriptors = pathlib.Path('/proc/%d/fd' % door.relay.proc.pid)
    client.allocate().refresh(0)
    before = len(list(descriptors.iterdir()))
    for i in range(times):
        if i % 90 == 89:
            clock.step(121)
        client.allocate()
        assert client.refresh(0).lifetime == 0
    assert len(list(descriptors.iterdir())) <= before + 2
    clock.step(121)
    for _ in range(2):
        held = [door.client().allocate() for _ in range(80)]
        assert len({client.relayed for client in held}) == 80
        clock.step(700)  # all of them expire
        door.relay.until(lambda: client.request(REFRESH).code == 437 and
                         door.relay.metrics()['sluice_turn_allocations'] == 0, 10, 'their end')
        clock.step(121)
    door.relay.until(lambda: len(list(descriptors.iterdir())) <= before + 2, 5, 'no more sockets')


def test_dusk_59_where_nobody_may_be_reached(turn):
    """Every form of every closed address: turn_62 and turn_63 in test_turn_policy.py."""
    door = turn(allow=False)
    client = door.client().allocate()
    for ip in ('127.0.0.2', '169.254.169.254', '10.0.0.1', '172.16.0.1', '192.168.1.1', '0.0.0.0',
               '100.64.0.1'):
        assert client.permit(ip).code == 403, ip
        assert client.bind_channel(0x4000, (ip, 80)).code == 403, ip
    assert client.permit('8.8.8.8').code == 0


# ---- 61 to 64: operations -----------------------------------------------------------------------

def environment(tmp_path, **more):
    """As an operator's: nothing of ours, a port that is free, no TURN beside others' tests."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(('SLUICE_', 'DUSK_', 'XDG_')) and k != 'RUST_LOG'}
    (tmp_path / 'home').mkdir(exist_ok=True)
    env.update({'HOME': str(tmp_path / 'home'), 'DUSK_RELAY_PORT': '0',
                'DUSK_TURN_ENABLED': 'false'}, **more)
    return env


class Original:
    """The binary under the original's name, without a flag."""

    def __init__(self, tmp_path, **more):
        self.name = tmp_path / 'dusk-relay'
        if not self.name.is_symlink():
            self.name.symlink_to(SLUICE)
        self.err_path = tmp_path / 'stderr'
        with open(self.err_path, 'wb') as err:
            self.proc = subprocess.Popen([str(self.name)], env=environment(tmp_path, **more),
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=err, text=True, cwd=tmp_path)
        self.out = []
        for line in self.proc.stdout:
            self.out.append(line.rstrip('\n'))
            if line.startswith('try it:'):
                break

    def err(self):
        return self.err_path.read_text()

    @property
    def address(self):
        return next(line for line in self.out if 'relay address: ' in line).split(': ')[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            assert self.proc.wait(20 * SLOW) in (0, 1)
        finally:
            self.proc.kill()
            self.proc.stdout.close()


def test_dusk_61_the_originals_key_file(tmp_path):
    directory = tmp_path / 'xdg' / 'dusk-relay'
    directory.mkdir(parents=True)
    path = directory / 'keypair'
    path.write_bytes(KEY_FILE)
    path.chmod(0o644)
    with Original(tmp_path, XDG_DATA_HOME=str(tmp_path / 'xdg')) as live:
        assert live.address.endswith('/p2p/' + ALICE)
    assert path.read_bytes() == KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, 'loose modes are tightened'


def test_dusk_61_a_new_key_file(tmp_path):
    """And where: an XDG_DATA_HOME that is no absolute path does not count (§12)."""
    path = tmp_path / 'home' / '.local' / 'share' / 'dusk-relay' / 'keypair'
    with Original(tmp_path, XDG_DATA_HOME='relative') as live:
        first = live.address.rsplit('/', 1)[1]
    data = path.read_bytes()
    assert len(data) == 68 and data[:4] == KEY_FILE[:4]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Original(tmp_path) as live:
        assert live.address.rsplit('/', 1)[1] == first


def test_dusk_61_without_a_home(tmp_path):
    with Original(tmp_path, HOME=str(tmp_path / 'nowhere')) as live:
        assert live.address
    assert len((tmp_path / 'relay_keypair').read_bytes()) == 68


@pytest.mark.parametrize('content', [b'', KEY_FILE[:-1], KEY_FILE[:36] + bytes(32), bytes(68)],
                         ids=['empty', 'cut', 'of two keys', 'zeroes'])
def test_dusk_61_a_corrupted_key_file_is_not_overwritten(tmp_path, content):
    path = tmp_path / 'home' / '.local' / 'share' / 'dusk-relay' / 'keypair'
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with Original(tmp_path) as live:
        assert live.proc.wait(20 * SLOW) == 1
        assert str(path) in live.err(), live.err()
    assert path.read_bytes() == content


LINE = re.compile(r'\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (ERROR|WARN|INFO|DEBUG|TRACE) dusk_relay\] .+')


def test_dusk_62_what_is_printed(tmp_path):
    with Original(tmp_path) as live:
        at = next(i for i, line in enumerate(live.out) if 'relay address' in line)
        assert re.fullmatch(r'  relay address: /ip4/0\.0\.0\.0/tcp/\d+/p2p/12D3KooW\w+',
                            live.out[at])
        assert live.out[at - 1] == '' and live.out[at + 1] == ''
        assert sum('relay address' in line for line in live.out) == 1
        peer_id = live.address.rsplit('/', 1)[1]
        time.sleep(0.3)
        lines = live.err().splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    words = [line.split('dusk_relay] ')[1] for line in lines]
    assert 'dusk relay server starting' in words
    assert 'peer id: ' + peer_id in words
    warned = [line for line in lines if ' WARN ' in line and
              ('peer relays' in line or 'standalone' in line)]
    assert len(warned) == 2, lines


def test_dusk_62_events(start):
    relay = start(preset='dusk')
    keys = Key(), Key()
    with relay.connect(keys[0]) as source, relay.connect(keys[1]) as target:
        for n, session in enumerate((source, target)):
            relay.wait_log(r'INFO dusk_relay\] peer connected: %s \(total connections: %d\)' % (
                base58(session.key.peer_id), n + 1))
        assert reserve(target).status == OK
        near, far = join(source, target)
        relay.wait_log(r'relay reservation accepted for peer \w+ \(total: 1\)')
        relay.wait_log(r'circuit opened: \w+ -> \w+ \(through relay\)')
        near.reset()
        relay.wait_log(r'circuit closed: \w+ -> \w+ ')
    relay.wait_log(r'peer disconnected: \w+ \(total connections: 0\)')
    assert all(LINE.fullmatch(line) for line in relay.log().splitlines()), relay.log()
    assert '127.0.0.1' not in ''.join(
        line for line in relay.log().splitlines() if ' INFO ' in line and 'listening' not in line)


def test_dusk_62_events_of_the_services(turn):
    door = turn(DUSK_TURN_PUBLIC_IP='192.0.2.1')
    with rdv.Peer(door.relay) as live:
        me, ns = base58(live.id), rdv.fresh('log')
        live.registered(ns)
        live.found(ns)
        directory(live.session, register('alice'))
        directory(live.session, search('alice'))
        directory(live.session, text('Remove'))
        stream = live.session.open('/dusk/turn-credentials/1.0.0',
                                   b'\xa1' + text('peer_id') + text(me))
        stream.close_write()
        assert b'uris' in stream.recv_to_eof(10 * SLOW)
    door.client().allocate().refresh(0)
    for words in ('rendezvous registration: peer %s in namespace %s' % (me, ns),
                  'discover served: 1 registrations to ' + me, 'directory register: ' + me,
                  'directory search: ' + me, 'directory remove: ' + me,
                  'turn credentials issued: ' + me, 'TURN allocation made for user ',
                  'TURN allocation deleted for user '):
        door.relay.wait_log(r'INFO dusk_relay\] ' + words)
    assert 'alice' not in door.relay.log(), 'no name, no query'


def test_dusk_62_rust_log_error_silences_info(start):
    relay = start(preset='dusk', env={'RUST_LOG': 'error'})
    with relay.connect() as session:
        assert reserve(session).status == OK
    assert relay.log() == ''
    relay = start(preset='dusk', env={'RUST_LOG': 'warn,dusk_relay=info'})
    relay.wait_log('dusk relay server starting')


def test_dusk_63_sigterm_with_circuits_open(tmp_path):
    """Without a flag: a circuit may run on, but the end comes within 5 s."""
    with Original(tmp_path) as live:
        relay = Relay(tmp_path)  # to talk to it
        relay.addresses = [live.address.replace('0.0.0.0', '127.0.0.1')]
        source, target = relay.connect(), relay.connect()
        assert reserve(target).status == OK
        join(source, target)
        began = time.monotonic()
        live.proc.send_signal(signal.SIGTERM)
        assert live.proc.wait(20 * SLOW) == 0
        assert time.monotonic() - began < 5 * SLOW
        for session in source, target:
            assert session.wait_dead(5) and session.goaway == 0



def directory(session, request):
    """One exchange of the directory (dusk.md §6)."""
    stream = session.open('/dusk/directory/1.0.0', request)
    stream.close_write()
    return stream.recv_to_eof(15 * SLOW)


def text(words):
    data = words.encode()
    return bytes([0x60 + len(data)] if len(data) < 24 else [0x78, len(data)]) + data


def register(name):
    return b'\xa1' + text('Register') + b'\xa1' + text('display_name') + text(name)


def search(query):
    return b'\xa1' + text('Search') + b'\xa1' + text('query') + text(query)


def test_dusk_63_sigkill_loses_no_acknowledged_register(start, tmp_path):
    relay = start(preset='dusk', data=tmp_path / 'data')
    acked = []
    for i in range(20):
        with relay.connect() as session:
            if directory(session, register('name %02d' % i)) == b'\x62Ok':
                acked.append('name %02d' % i)
    relay.kill()
    assert len(acked) == 20
    relay.start()
    with relay.connect() as session:
        for name in acked:
            assert text(name) in directory(session, search(name)), name


def test_dusk_64_the_port_in_use(tmp_path):
    """TURN's: test_dusk_goes_on_without_turn in test_turn_door.py."""
    with socket.create_server(('0.0.0.0', 0)) as taken:
        with Original(tmp_path, DUSK_RELAY_PORT=str(taken.getsockname()[1])) as live:
            assert live.proc.wait(20 * SLOW) == 1
            assert str(taken.getsockname()[1]) in live.err() and 'in use' in live.err()
