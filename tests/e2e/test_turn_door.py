"""How the TURN door opens: addresses, ports, ready lines, and what keeps it shut (design.md "Commands
people type"; presets.md)."""

import os
import re
import socket
import subprocess

import pytest

from relay import SLUICE
from turn import ALLOCATE, BINDING, UDP_TRANSPORT, Client, UdpPath, ephemeral, message


def bound(kind, host='127.0.0.1', port=0):
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def refused(tmp_path, *flags):
    """A start that must not succeed: (exit status, what it said)."""
    done = subprocess.run([SLUICE, '--preset', 'turn', '--data', tmp_path / 'data', '--listen-http',
                           'off', *map(str, flags)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def firewall(turnd):
    return [line[len('firewall: open '):] for line in turnd.relay.lines
            if line.startswith('firewall: ')]


@pytest.mark.sanitize
def test_ready_lines_name_what_is_open(turn_start):
    turnd = turn_start('--turn-ports', '50000-50999', listen=['127.0.0.1:0', '127.0.0.1:0'])
    ports = [int(port) for _host, port in turnd.relay.turns]
    assert len(set(ports)) == 2 and all(ports)
    want = [kind + ' %d' % port for port in ports for kind in ('UDP', 'TCP')]
    assert firewall(turnd) == [*want, 'UDP 50000-50999', 'TCP 50000-50999']
    for port in ports:  # a port that was picked is one for datagrams and for streams
        for kind in ('udp', 'tcp'):
            client = turnd.client(kind, at=('127.0.0.1', port))
            assert client.exchange(message(BINDING)).address() == client.path.local


@pytest.mark.sanitize
def test_stun_only_is_said_and_its_allocate_is_403(turn_start):
    turnd = turn_start(users=(), secrets=())
    turnd.relay.until(lambda: 'STUN only' in turnd.relay.log(), 3, 'a note')
    assert [word[:4] for word in firewall(turnd)] == ['UDP ', 'TCP '], 'and no relayed ports'
    client = turnd.udp()
    assert client.exchange(message(BINDING)).address() == client.path.local
    assert client.exchange(message(ALLOCATE, [UDP_TRANSPORT])).code == 403


@pytest.mark.parametrize('kind', [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=['udp', 'tcp'])
def test_a_port_in_use_is_exit_1_and_names_flag_and_holder(tmp_path, kind):
    with bound(kind) as taken:
        port = taken.getsockname()[1]
        status, words = refused(tmp_path, '--listen-turn', '127.0.0.1:%d' % port)
    assert status == 1, words
    assert re.search(r'port %d\b.*--listen-turn 127\.0\.0\.1:%d.*process %d' % (
        port, port, os.getpid()), words), words
    assert 'turn address' not in words and len(words.strip().splitlines()) == 1, words


def test_a_second_server_does_not_join_the_first(turn_start, tmp_path):
    """SO_REUSEPORT would let it."""
    turnd = turn_start()
    status, words = refused(tmp_path, '--listen-turn', '127.0.0.1:%d' % turnd.at[1])
    assert status == 1 and 'sluice' in words and 'in use' in words, words


DUSK = {'preset': 'dusk', 'listen': None, 'http': None}


def test_dusk_goes_on_without_turn(start):
    """Check dusk_64. presets.md: the others exit with 1."""
    with bound(socket.SOCK_DGRAM) as taken:
        live = start('--listen-turn', '127.0.0.1:%d' % taken.getsockname()[1],
                     '--listen-p2p', '127.0.0.1:0', **DUSK)
    assert live.addresses and not live.turns
    live.until(lambda: 'TURN stays closed' in live.log(), 3, 'a warning')


@pytest.mark.sanitize
def test_dusk_makes_a_secret_and_keeps_it(start, tmp_path):
    """presets.md: clients hold credentials across a restart of the relay."""
    flags = '--listen-turn', '127.0.0.1:0', '--listen-p2p', '127.0.0.1:0'
    path = tmp_path / 'data' / 'turn.secret'
    said, kept = [], []
    for _ in range(2):
        live = start(*flags, data=tmp_path / 'data', **DUSK)
        kept.append(path.read_text().strip())
        assert path.stat().st_mode & 0o777 == 0o600
        user, password = ephemeral(kept[0])
        with Client(UdpPath(live.turn), user=user, password=password) as client:
            client.allocate()
        assert live.stop() == 0
        said.append(live.log() + '\n'.join(live.lines))
    assert kept[0] == kept[1] and len(kept[0]) == 64
    assert all(kept[0] not in words for words in said)
    path.write_text('short\n')
    with pytest.raises(AssertionError, match=r'turn\.secret'):
        start(*flags, data=tmp_path / 'data', **DUSK)
    assert path.read_text() == 'short\n'


@pytest.mark.sanitize
def test_an_outside_address_by_name(turn_start):
    """Of a host on loopback: everything else has no use for such an answer."""
    turnd = turn_start('--turn-relay-ip', '127.250.0.1', '--turn-external-ip', 'localhost')
    assert turnd.udp().allocate().relayed[0] == '127.0.0.1'


def test_a_private_relayed_address_is_warned_of(turn_start):
    turnd = turn_start()
    turnd.relay.until(lambda: 'relayed address 127.0.0.1 is private' in turnd.relay.log(), 3,
                      'a warning')
    turnd = turn_start('--turn-external-ip', '8.8.4.4', listen=['127.0.0.1:0', '[::1]:0'])
    turnd.relay.until(lambda: 'relayed address ::1' in turnd.relay.log(), 3, 'the other family')
    assert 'relayed address 127.0.0.1' not in turnd.relay.log()


def test_check_config_names_every_value_and_no_secret(tmp_path):
    done = subprocess.run(
        [SLUICE, '--check-config', '--data', tmp_path, '--turn-secret', 'north', '--turn-user',
         'alice:hunter2', '--listen-turn', '192.0.2.1:3478', '--turn-alternate', '192.0.2.2:3479',
         '--turn-mobility'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for line in ('listen-turn = 192.0.2.1:3478', 'turn-alternate = 192.0.2.2:3479',
                 'turn-mobility = true', 'turn-secret = ***', 'turn-user = ***',
                 'turn-replies-per-ip = 50', 'turn-lifetime-secs = 3600',
                 'turn-ports = 49152-65535'):
        assert line in done.stdout.splitlines(), line
    assert 'north' not in done.stdout and 'hunter2' not in done.stdout


def test_passwords_are_gone_from_memory(turn_start, tmp_path):
    """What is kept of a user is keys; the arguments of the process are the operator's to hide, and
    a file hides them."""
    users = tmp_path / 'users'
    users.write_text('carol:correct-horse-battery\n')
    turnd = turn_start('--turn-users-file', users, users=('dave:word',))
    turnd.udp(user='carol', password='correct-horse-battery').allocate()
    pid = turnd.relay.proc.pid
    with open('/proc/%d/maps' % pid) as maps, open('/proc/%d/mem' % pid, 'rb', 0) as memory:
        for line in maps:
            span, mode = line.split()[:2]
            begin, end = (int(word, 16) for word in span.split('-'))
            if mode.startswith('rw') and end - begin < 1 << 28:
                try:
                    memory.seek(begin)
                    assert b'correct-horse-battery' not in memory.read(end - begin), line
                except (OSError, ValueError):
                    continue  # not readable: of the kernel
