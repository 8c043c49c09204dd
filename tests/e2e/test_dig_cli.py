"""dig.md §20, checks 46 and 47 (STUN), 53 (the health port), 55 and 56 (ports), 58 and 59 (command
line, environment), and the service commands of §17 with a systemctl that is a script."""

import json
import os
import re
import socket
import struct
import subprocess
import time

import pytest

from relay import SLOW, SLUICE, next_ip

COOKIE = bytes.fromhex('2112a442')
TID = bytes.fromhex('a1b2c3d4e5f60718293a4b5c')
ASK = bytes.fromhex('00010000') + COOKIE + TID


def told(address, port):
    """What a client there is answered (dig.md §11)."""
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    mask = COOKIE + TID
    value = struct.pack('!BBH', 0, 2 if ':' in address else 1, port ^ 0x2112)
    value += bytes(a ^ b for a, b in zip(raw, mask))
    return struct.pack('!HH', 0x0101, 4 + len(value)) + mask + struct.pack('!HH', 0x20,
                                                                           len(value)) + value


def ask(type_=1, length=0, cookie=COOKIE, tail=b''):
    return struct.pack('!HH', type_, length) + cookie + TID + tail


# ---- STUN: 46, 47 --------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_46_binding_is_answered_with_the_unmapped_source(dig_start):
    """The vectors of §11 are in the unit tests. An IPv4 client of [::] is told IPv4."""
    assert told('198.51.100.23', 40001).hex() == \
        '0101000c2112a442a1b2c3d4e5f60718293a4b5c002000080001bd53e721c055'
    relay = dig_start(host='[::]')
    at4, at6 = (relay.door('stun-listen', host) for host in ('127.0.0.1', '::1'))
    got, here = relay.stun(ASK, at=at4)
    assert len(got) == 32 and got == told(*here[:2])
    got, here = relay.stun(ASK, at=at6)
    assert len(got) == 44 and got == told(*here[:2])


@pytest.mark.sanitize
@pytest.mark.parametrize('request_', [
    ask(tail=b'\0'), ask(tail=bytes(40)), ask(length=2, tail=b'ab'), ask(length=3, tail=b'abcdef'),
    ask(length=8, tail=bytes.fromhex('7fff000461626364')),
    ask(length=4, tail=bytes.fromhex('0006ffff')),
    ask(length=8, tail=bytes.fromhex('80280004deadbeef')),
], ids=['a byte more', 'forty more', 'no multiple of four', 'neither', 'unknown attribute',
        'attribute beyond the end', 'wrong fingerprint'])
def test_dig_47_what_comes_with_it_changes_nothing(digd, request_):
    got, here = digd.stun(request_)
    assert got == told(*here)


@pytest.mark.sanitize
@pytest.mark.parametrize('request_', [
    ask(cookie=bytes.fromhex('2112a443')), ask(0x0011), ask(0x0101), ask(0x0111), ask(0x0003),
    ask(length=4), ask(length=8, tail=bytes(7)), ASK[:19], b'', ask(0x4001), ask(0x8001),
    ask(0xc001), b'GET / HTTP/1.1\r\n\r\n', bytes(1500),
], ids=['cookie', 'indication', 'success', 'error', 'Allocate', 'length beyond', 'by a byte',
        '19 bytes', 'nothing', '01', '10', '11', 'HTTP', 'zeroes'])
def test_dig_47_all_else_is_met_with_silence(digd, request_):
    got, _ = digd.stun(request_, timeout=0.2)
    assert got is None


def test_dig_47_a_flood_leaves_answers_for_who_is_connected(dig_start):
    """dig.md §21, STUN."""
    relay = dig_start(stun_per_ip_rps=0, stun_global_rps=8, shards=1)
    here = next_ip()
    relay.peer(source=here)
    socks = []
    for source in (next_ip(), here, next_ip()):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, 0))
        sock.settimeout(0.5 * SLOW)
        socks.append(sock)
    for sock, count in zip(socks, (20, 2, 3)):
        for _ in range(count):
            sock.sendto(ASK, relay.door('stun-listen'))
        time.sleep(0.005)
    got = []
    for sock in socks:
        got.append(0)
        try:
            while sock.recv(100):
                got[-1] += 1
        except socket.timeout:
            sock.close()
    assert 8 <= got[0] <= 9 and got[1:] == [2, 0], got


def burst(relay, source, count, at=None):
    """How many of so many requests, sent at once, are answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.settimeout(0.4 * SLOW)
        for _ in range(count):
            sock.sendto(ASK, at or relay.door('stun-listen'))
        answers = 0
        try:
            while sock.recv(100):
                answers += 1
        except socket.timeout:
            pass
        return answers


def test_dig_47_a_source_is_answered_five_times_in_a_second(dig_start):
    relay = dig_start()
    here = next_ip()
    assert burst(relay, here, 10) == 5
    assert burst(relay, next_ip(), 3) == 3, 'another source has its own'
    time.sleep(1.1)
    assert burst(relay, here, 10) == 5


def test_dig_47_zero_switches_the_limit_off_and_all_share_one(dig_start):
    assert burst(dig_start(stun_per_ip_rps=0), next_ip(), 60) == 60
    relay = dig_start(stun_per_ip_rps=0, stun_global_rps=20)
    first, second = (burst(relay, next_ip(), 30) for _ in range(2))
    assert first in (20, 21)
    assert second <= 12 * SLOW, 'what has come back in the meantime'


# ---- the health port: 53 -------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('method, path, status', [
    ('GET', '/health', 200), ('HEAD', '/health', 200), ('POST', '/health', 405),
    ('DELETE', '/health', 405), ('GET', '/', 404), ('GET', '/stats.json', 404),
    ('GET', '/metrics', 404), ('GET', '/health/', 404), ('GET', '/HEALTH', 404),
    ('POST', '/nope', 404), ('GET', '/health?x=1', 200)])
def test_dig_53_the_health_port_has_one_page(digd, method, path, status):
    got, fields, body = digd.fetch(path, 'health-listen', method)
    fields = {name.lower(): value for name, value in fields.items()}
    assert got == status
    if status == 200:
        assert fields['content-type'] == 'application/json'
    if (method, status) == ('GET', 200):
        health = json.loads(body)
        assert list(health) == ['status', 'connected_peers', 'uptime_secs', 'version']
        assert health['status'] == 'ok' and type(health['connected_peers']) is int
        assert type(health['uptime_secs']) is int and re.match(r'\d+\.\d+\.\d+$', health['version'])
    else:
        assert body == b''
    if status == 405:
        assert fields['allow'] == 'GET,HEAD'


def test_dig_53_the_health_port_counts_registrants(dig_start):
    relay = dig_start()
    health = lambda: relay.fetch('/health', 'health-listen')[2]
    assert json.loads(health())['connected_peers'] == 0
    clients = relay.group(3)
    assert json.loads(health())['connected_peers'] == 3
    clients[0].close()
    relay.settle(lambda: json.loads(health())['connected_peers'] == 2)
    raw = b'GET /health HTTP/1.0\r\n\r\n'
    assert relay.fetch(door='health-listen', raw=raw)[0] == 200


# ---- ports: 55, 56 -------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('head, location', [
    (b'GET /a?b=1 HTTP/1.1\r\nHost: ex.org:81\r\n\r\n', 'https://ex.org:81/a?b=1'),
    (b'GET /a HTTP/1.1\r\n\r\n', 'https://relay.dig.net/a'),
    (b'POST /x HTTP/1.0\r\nhost: ex.org\r\nContent-Length: 2\r\n\r\nab', 'https://ex.org/x')])
def test_dig_55_the_redirect_port_sends_to_https(digd, head, location):
    status, fields, body = digd.fetch(door='dashboard-listen', raw=head)
    fields = {name.lower(): value for name, value in fields.items()}
    assert (status, fields['location'], body) == (301, location, b'')
    assert fields['content-length'] == '0' and fields['connection'] == 'close'


@pytest.mark.sanitize
@pytest.mark.parametrize('head', [
    b'nonsense\r\n\r\n', b'GET /' + b'a' * 16400,
    b'GET / HTTP/1.1\r\nHost: ex.org\x0bX: y\r\n\r\n'], ids=['nonsense', 'too long', 'control'])
def test_dig_55_what_is_no_request_is_closed_without_a_word(digd, head):
    with socket.create_connection(digd.door('dashboard-listen'), timeout=5 * SLOW) as sock:
        sock.sendall(head)
        try:
            assert sock.recv(100) == b''
        except ConnectionResetError:
            pass


def test_dig_55_silence_on_the_redirect_port_ends(digd):
    """Which the original lets last for ever (D4)."""
    began = time.monotonic()
    with socket.create_connection(digd.door('dashboard-listen'), timeout=20 * SLOW) as sock:
        sock.sendall(b'GET / HT')
        assert sock.recv(1) == b''
    assert 3 < time.monotonic() - began < 9 * SLOW


def occupied(kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(('127.0.0.1', 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(1)
    return sock, '127.0.0.1:%d' % sock.getsockname()[1]


def test_dig_56_a_busy_redirect_port_is_a_warning(dig_start):
    sock, at = occupied()
    with sock:
        relay = dig_start(dashboard_listen=at)
        assert 'redirect' not in relay.doors
        relay.wait_log(r'level=warn.*nothing is redirected.*%s' % at)
        relay.group(2)
        assert relay.fetch('/health', 'health-listen')[0] == 200


@pytest.mark.parametrize('door, kind', [
    ('listen', socket.SOCK_STREAM), ('health-listen', socket.SOCK_STREAM),
    ('stun-listen', socket.SOCK_DGRAM)])
def test_dig_56_any_other_busy_port_ends_the_start(tmp_path, door, kind):
    sock, at = occupied(kind)
    with sock:
        args = {name: '127.0.0.1:0' for name in ('listen', 'health-listen', 'stun-listen',
                                                 'dashboard-listen')}
        args[door] = at
        done = relay_run(tmp_path, *('--%s=%s' % item for item in args.items()))
        assert done.returncode == 1
        assert at.rsplit(':', 1)[1] in done.stderr, done.stderr


def test_dig_56_stun_alone_needs_no_tcp_port(dig_start):
    """presets.md: 3478/udp. With credentials there is TURN, and streams with it."""
    sock, at = occupied()
    with sock:
        relay = dig_start(stun_listen=at)
        got, here = relay.stun(ASK)
        assert got == told(*here)
        assert not re.search('firewall: open TCP %s$' % at.rsplit(':', 1)[1],
                             '\n'.join(relay.lines), re.M)
    relay = dig_start('--turn-user=a:b')
    assert relay.stun(ask(3), timeout=1)[0][:2] == b'\x01\x13'
    with socket.create_connection(relay.door('stun-listen'), timeout=5 * SLOW) as stream:
        stream.sendall(ASK)
        assert stream.recv(100)[:2] == b'\x01\x01'


# ---- command line and environment: 58, 59 --------------------------------------------------------

def relay_run(tmp_path, *args, env=(), name='dig-relay', timeout=20):
    """The program by that name, which is a link."""
    link = tmp_path / name
    if not link.exists():
        link.symlink_to(SLUICE)
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith(('SLUICE_P', 'DIG_', 'DUSK_', 'XDG_')) and k != 'RUST_LOG'}
    clean.update({'HOME': str(tmp_path), 'SLUICE_DATA': str(tmp_path / 'data')}, **dict(env))
    return subprocess.run([link, *args], env=clean, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout * SLOW)


def test_dig_58_version_is_one_line(tmp_path):
    done = relay_run(tmp_path, '--version')
    assert done.returncode == 0 and re.match(r'dig-relay \d+\.\d+\.\d+\n$', done.stdout)


@pytest.mark.parametrize('words', [['--help'], ['help'], ['help', 'install'], ['-h']])
def test_dig_58_help_lists_six_commands(tmp_path, words):
    done = relay_run(tmp_path, *words)
    assert done.returncode == 0
    listed = re.findall(r'^  ([a-z-]+)  ', done.stdout, re.M)
    assert listed == ['serve', 'install', 'uninstall', 'start', 'stop', 'status', 'help']
    assert 'run-service' not in done.stdout
    assert '--registrations-per-ip-per-sec' in done.stdout


@pytest.mark.sanitize
def test_dig_58_status_says_whether_it_serves(tmp_path, digd):
    done = relay_run(tmp_path, 'status', '--json', '--health-listen', '127.0.0.1:1')
    assert done.returncode == 1 and done.stderr == ''
    assert json.loads(done.stdout) == {'ok': True, 'result': {
        'health_url': 'http://127.0.0.1:1/health', 'serving': False}}
    assert done.stdout.count('\n') == 1
    at = '%s:%d' % digd.door('health-listen')
    done = relay_run(tmp_path, '--json', '--health-listen', at, 'status')
    assert done.returncode == 0
    assert json.loads(done.stdout) == {'ok': True, 'result': {
        'health_url': 'http://%s/health' % at, 'serving': True}}
    done = relay_run(tmp_path, 'status', env={'DIG_RELAY_HEALTH_LISTEN': at})
    assert done.returncode == 0 and 'serving' in done.stdout
    port = at.rsplit(':', 1)[1]
    done = relay_run(tmp_path, 'status', '--json', '--health-listen=0.0.0.0:' + port)
    assert json.loads(done.stdout)['result'] == {
        'health_url': 'http://0.0.0.0:%s/health' % port, 'serving': True}


@pytest.mark.parametrize('args', [
    '--max-connections=0', '--idle-timeout-secs=0', '--outbound-queue-capacity=0',
    '--max-message-bytes=0', '--register-timeout-secs=0', '--health-check-interval-secs=0',
    '--liveness-deadline-secs=0', '--liveness-deadline-secs=29', '--liveness-deadline-secs=120',
    '--idle-timeout-secs=90', '--tls-cert=/c.pem', '--tls-key=/k.pem', '--max-connections=10',
    '--ban-duration-secs=0', '--ban-strike-window-secs=0', '--listen=9450', '--listen=localhost',
    '--max-connections=-1', '--max-connections=x', '--stun-global-rps=1.5', '--no-such', '--listen',
    'explode', 'serve serve', 'status --scope=all'])
def test_dig_58_what_cannot_be_is_refused_with_2(tmp_path, args):
    done = relay_run(tmp_path, *args.split())
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1, done.stderr
    assert not (tmp_path / 'data').exists(), 'nothing is touched'


def effective(tmp_path, *args, **env):
    done = relay_run(tmp_path, *args, '--check-config', env=env)
    assert done.returncode == 0, done.stderr
    return dict(line.split(' = ', 1) for line in done.stdout.splitlines())


def test_dig_59_a_flag_overrides_the_environment(tmp_path):
    env = {'DIG_RELAY_MAX_CONNECTIONS': '77', 'DIG_RELAY_LISTEN': '127.0.0.1:7'}
    got = effective(tmp_path, **env)
    assert (got['dig-max-conns'], got['listen-dig']) == ('77', '127.0.0.1:7')
    got = effective(tmp_path, '--max-connections=88', '--listen=127.0.0.1:8', 'serve', **env)
    assert (got['dig-max-conns'], got['listen-dig']) == ('88', '127.0.0.1:8')


def test_dig_59_a_bad_number_in_the_environment_is_ignored(tmp_path, dig_start):
    env = {'DIG_RELAY_MAX_CONNECTIONS': 'many', 'DIG_RELAY_BAN_THRESHOLD': '-1',
           'DIG_RELAY_STUN_LISTEN': 'nowhere'}
    got = effective(tmp_path, **env)
    assert (got['dig-max-conns'], got['dig-ban-strikes']) == ('4096', '20')
    assert got['listen-turn'] == '[::]:3478'
    relay = dig_start(env=env)
    assert 'DIG_RELAY_MAX_CONNECTIONS=many is ignored' in relay.log()


@pytest.mark.parametrize('bad', ['10.0.0.0/8,nobody', '10.0.0.0/33', 'fd00::/129', '10.0.0'])
def test_dig_59_a_bad_proxy_list_refuses_to_start(tmp_path, bad):
    done = relay_run(tmp_path, env={'DIG_RELAY_TRUSTED_PROXY_CIDRS': bad})
    assert done.returncode == 2 and 'DIG_RELAY_TRUSTED_PROXY_CIDRS' in done.stderr


def test_dig_59_a_good_proxy_list_is_all_of_it(tmp_path):
    got = relay_run(tmp_path, '--check-config',
                    env={'DIG_RELAY_TRUSTED_PROXY_CIDRS': ' 10.0.0.0/8,, 192.0.2.7 , fd00::/8'})
    assert re.findall('^proxy-from = (.*)', got.stdout, re.M) == ['10.0.0.0/8', '192.0.2.7/32',
                                                                 'fd00::/8']


def test_its_own_words_are_nobody_elses(tmp_path):
    for args in (['--max-connections=9'], ['status'], ['--json']):
        assert relay_run(tmp_path, *args, name='sluice').returncode == 2


# ---- services: §17 -------------------------------------------------------------------------------

FAKE = '''#!/bin/sh
echo "$*" >> "$HOME/asked"
[ "$1" = --user ] && shift && dir=$HOME/.config/systemd/user || dir=/nowhere
[ "$1" = cat ] && [ ! -f "$dir/$2" ] && { echo "No files found for $2." >&2; exit 1; }
exit 0
'''
UNIT = 'dignetwork-dig-relay.service'
LABEL = 'net.dignetwork.dig-relay'


@pytest.fixture
def service(tmp_path):
    fake = tmp_path / 'bin' / 'systemctl'
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)

    def run(*args, **env):
        env['PATH'] = '%s:/usr/bin:/bin' % fake.parent
        done = relay_run(tmp_path, *args, '--json', '--scope', 'user', env=env)
        assert done.stderr == '' and done.stdout.count('\n') == 1, done
        return done.returncode, json.loads(done.stdout)
    run.unit = tmp_path / '.config' / 'systemd' / 'user' / UNIT
    return run


def test_a_service_comes_and_goes(service):
    assert service('install', '--max-connections=99', DIG_RELAY_STUN_GLOBAL_RPS='7') == (0, {
        'ok': True, 'result': {'installed': True, 'registered': True, 'started': False,
                               'label': LABEL, 'scope': 'user', 'program': str(SLUICE),
                               'listen': '[::]:9450', 'health_listen': '[::]:9451',
                               'migration': None}})
    text = service.unit.read_text()
    assert 'ExecStart="%s" serve\n' % SLUICE in text
    for line in ('DIG_RELAY_MAX_CONNECTIONS=99', 'DIG_RELAY_STUN_GLOBAL_RPS=7',
                 'DIG_RELAY_LISTEN=[::]:9450'):
        assert 'Environment="%s"\n' % line in text
    assert service('start') == (0, {'ok': True, 'result': {
        'started': True, 'label': LABEL, 'scope': 'user'}})
    assert service('stop') == (0, {'ok': True, 'result': {
        'stopped': True, 'label': LABEL, 'scope': 'user'}})
    assert service('uninstall') == (0, {'ok': True, 'result': {
        'installed': False, 'registered': False, 'label': LABEL, 'removed_scopes': ['user'],
        'scopes': [{'scope': 'user', 'found': True, 'removed': True, 'indeterminate': False,
                    'error': None}]}})
    assert not service.unit.exists()
    status, answer = service('uninstall')
    assert status == 1 and answer['ok'] is False and LABEL in answer['error']['message']


def test_a_unit_is_what_the_relay_then_does(service, tmp_path):
    """Its environment, given to the program by another name, is the same relay."""
    service('install', '--idle-timeout-secs=300', '--listen=127.0.0.1:7', '--dig-hex-ids')
    env = dict(re.findall(r'^Environment="(\w+)=(.*)"$', service.unit.read_text(), re.M))
    done = relay_run(tmp_path, 'serve', '--check-config', env=env, name='another')
    assert done.returncode == 0, done.stderr
    got = dict(line.split(' = ', 1) for line in done.stdout.splitlines())
    assert (got['preset'], got['dig-idle-timeout-secs'], got['listen-dig'], got['dig-hex-ids']) == \
        ('dig', '300', '127.0.0.1:7', 'true')
