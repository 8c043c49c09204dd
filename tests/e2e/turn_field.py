"""A small internet in network namespaces, for TURN clients that are not ours: a server with two
addresses of each family, and two clients behind links of their own that reach it and nothing else.
The addresses are global unicast ones that live only in here, so that the server's default-deny peer
policy stays on; only the server's namespace is connected to both, and it does not forward, so what
the clients exchange has been relayed."""

import contextlib
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import threading
import time

from relay import SLOW, SLUICE

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNPACKED = ROOT / '.deps' / 'root' / 'usr'  # tools/deps: coturn, unpacked, not installed

SERVER4, OTHER4 = '25.1.0.1', '25.1.0.2'
SERVER6, OTHER6 = '2a00:25:1::1', '2a00:25:1::2'
HOSTS = {'a': ('25.2.0', '2a00:25:2::'), 'b': ('25.3.0', '2a00:25:3::')}

USER, PASSWORD, REALM, SECRET = 'treal', 'a password', 'turn.test', 'a secret'


UNSHARE_CURE = ('needs network namespaces: allow unshare -Urn '
                '(sysctl kernel.unprivileged_userns_clone=1) and install iproute2')


def can_unshare():
    return subprocess.run(['unshare', '-Urn', 'ip', 'link', 'set', 'lo', 'up'],
                          capture_output=True).returncode == 0


def unpacked(name):
    """(path, environment) of a command of coturn's, from .deps/root/ or the host, or None."""
    path = UNPACKED / 'bin' / name
    if path.exists():
        env = dict(os.environ)
        env['LD_LIBRARY_PATH'] = ':'.join(str(d) for d in sorted(UNPACKED.glob('lib/*-linux-gnu*')))
        return str(path), env
    found = shutil.which(name)
    return (found, dict(os.environ)) if found else None


# tcpdump would give up its privileges, which it may not in a user namespace.
SNIFFER = '''
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 0))
with open(sys.argv[2], 'wb', buffering=0) as out:
    out.write(struct.pack('=IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
    print('ready', flush=True)
    while True:
        frame = s.recv(65535)
        now = time.time()
        n = len(frame)
        out.write(struct.pack('=IIII', int(now), int(now % 1 * 1e6), n, n) + frame)
'''


class Space:
    """One network namespace, held open by a process that ends with its stdin, so that it goes when
    the test does, however that ends."""

    def __init__(self, inside=None):
        argv = ['unshare', '-Urn'] if inside is None else [*inside.enter, 'unshare', '-n']
        self.holder = subprocess.Popen(
            [*argv, 'sh', '-c', 'ip link set lo up && echo ready && exec cat'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b'ready\n'
        self.enter = ['nsenter', '-t', str(self.holder.pid), '-U', '-n', '--preserve-credentials']

    def ip(self, *words):
        subprocess.run([*self.enter, 'ip', *words], check=True, capture_output=True)

    def wait_up(self, link):
        """The kernel gathers changes of links for up to a second; libnice uses none before."""
        for _ in range(100):
            if ' state UP ' in self.run(['ip', '-o', 'link', 'show', link]).stdout:
                return
            time.sleep(0.05)
        raise AssertionError('%s stays down' % link)

    def run(self, argv, timeout=60, **options):
        return subprocess.run([*self.enter, *map(str, argv)], capture_output=True, text=True,
                              timeout=timeout * SLOW, **options)

    def popen(self, argv, **options):
        return subprocess.Popen([*self.enter, *map(str, argv)], **options)

    @contextlib.contextmanager
    def sniff(self, link, path):
        """Writes what goes over a link to a file that tcpdump -r reads."""
        proc = self.popen(['/usr/bin/python3', '-c', SNIFFER, link, path], stdout=subprocess.PIPE)
        try:
            assert proc.stdout.readline() == b'ready\n'
            yield
        finally:
            proc.kill()
            proc.wait()
            proc.stdout.close()

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()
        self.holder.stdout.close()


class Field:
    """`s` is where the server is, `a` and `b` where its clients are."""

    def __init__(self):
        self.s = Space()
        self.a, self.b = Space(self.s), Space(self.s)
        for name, space in (('a', self.a), ('b', self.b)):
            four, six = HOSTS[name]
            self.s.ip('link', 'add', 'name', 'to-' + name, 'type', 'veth', 'peer', 'name', 'eth0',
                      'netns', str(space.holder.pid))
            for where, link, n in ((self.s, 'to-' + name, 1), (space, 'eth0', 2)):
                where.ip('addr', 'add', '%s.%d/24' % (four, n), 'dev', link)
                where.ip('addr', 'add', '%s%d/64' % (six, n), 'dev', link, 'nodad')
                where.ip('link', 'set', link, 'up')
            space.ip('addr', 'add', four + '.3/24', 'dev', 'eth0')  # a second one of each client
            space.ip('route', 'add', 'default', 'via', four + '.1')
            space.ip('-6', 'route', 'add', 'default', 'via', six + '1')
        for address in (SERVER4 + '/32', OTHER4 + '/32', SERVER6 + '/128', OTHER6 + '/128'):
            self.s.ip('addr', 'add', address, 'dev', 'to-a', *(['nodad'] if ':' in address else []))
        for where, link in ((self.a, 'eth0'), (self.b, 'eth0'), (self.s, 'to-a'), (self.s, 'to-b')):
            where.wait_up(link)

    def close(self):
        for space in (self.a, self.b, self.s):
            space.close()


class Server:
    """A TURN server in the server's namespace. With SLUICE_TURN_SERVER=coturn it is Debian's coturn
    instead of ours: whether a test that fails is wrong, or we are."""

    coturn = os.environ.get('SLUICE_TURN_SERVER') == 'coturn'

    def __init__(self, field, directory, *flags, alternate=False, mobility=False,
                 auth='user', shards=2, port=3478):
        self.field, self.log_path = field, pathlib.Path(directory) / 'server.log'
        self.port, self.proc, self.lines = port, None, []
        self.username, self.password = USER, PASSWORD
        make = self._coturn if self.coturn else self._sluice
        self.argv, self.env = make(directory, flags, alternate, mobility, auth, shards)

    def _sluice(self, directory, flags, alternate, mobility, auth, shards):
        argv = [SLUICE, '--preset', 'turn', '--shards', shards, '--data',
                pathlib.Path(directory) / 'data', '--drain-secs', 1, '--listen-http', '127.0.0.1:0',
                '--turn-relay-ip', SERVER4, '--turn-relay-ip', SERVER6, '--turn-realm', REALM,
                # the other address of RFC 5780 wants the first one named, and so only one family
                '--listen-turn', '%s:%d' % (SERVER4 if alternate else '[::]', self.port)]
        if auth == 'user':
            argv += ['--turn-user', '%s:%s' % (USER, PASSWORD)]
        else:
            argv += ['--turn-secret', SECRET]
        if alternate:
            argv += ['--turn-alternate', '%s:%d' % (OTHER4, self.port + 1)]
        if mobility:
            argv += ['--turn-mobility']
        env = {k: v for k, v in os.environ.items() if not k.startswith(('SLUICE_', 'DUSK_'))}
        return [*argv, *flags], env

    def _coturn(self, directory, _flags, alternate, mobility, auth, _shards):
        path, env = unpacked('turnserver')
        argv = [path, '-n', '--no-tls', '--no-dtls', '--no-cli', '--log-file', 'stdout',
                '--simple-log', '--pidfile', pathlib.Path(directory) / 'pid', '-r', REALM,
                '--db', pathlib.Path(directory) / 'db', '-p', self.port, '-L', SERVER4,
                '-L', SERVER6,
                '--relay-ip', SERVER4, '--relay-ip', SERVER6, '--relay-threads', 2,
                '--denied-peer-ip', '10.0.0.0-10.255.255.255']
        if auth == 'user':
            argv += ['--lt-cred-mech', '-u', '%s:%s' % (USER, PASSWORD)]
        else:
            argv += ['--use-auth-secret', '--static-auth-secret', SECRET]
        if alternate:
            argv += ['-L', OTHER4]
        else:
            argv += ['--no-rfc5780']
        if mobility:
            argv += ['--mobility']
        return argv, env

    def start(self, timeout=20):
        with open(self.log_path, 'ab') as log:
            self.proc = self.field.s.popen(self.argv, stdin=subprocess.DEVNULL, env=self.env,
                                           stdout=subprocess.PIPE, stderr=log, text=True)
        arrived = queue.Queue()

        def read():
            for line in self.proc.stdout:
                self.lines.append(line.rstrip('\n'))
                arrived.put(line)
            arrived.put(None)
        threading.Thread(target=read, daemon=True).start()
        end = time.monotonic() + timeout * SLOW
        ready = 'Total General servers' if self.coturn else 'try it:'
        while not any(ready in line for line in self.lines):
            try:
                line = arrived.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None and not any(ready in line for line in self.lines):
                raise AssertionError('no server: %s\n%s' % ('\n'.join(self.lines[-9:]), self.log()))
        if self.coturn:
            time.sleep(0.3)  # it says nothing when its listeners are there
        return self

    def log(self):
        return self.log_path.read_text(errors='replace') + '\n'.join(self.lines[-40:])

    def check(self):
        assert self.proc.poll() is None, 'the server ended with %r\n%s' % (
            self.proc.poll(), self.log()[-4000:])
        assert not re.search(r'ASSERT|Sanitizer|runtime error:', self.log()), self.log()[-4000:]
        if not self.coturn:  # no credential in any log (issue 4, 7)
            for secret in (PASSWORD, SECRET):
                assert secret not in self.log(), self.log()[-4000:]

    def stop(self, timeout=20):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        try:
            return self.proc.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise AssertionError('still there %d s after SIGTERM\n%s' % (timeout, self.log()))

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
