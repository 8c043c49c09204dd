"""A daemon that serves TURN, with the flags that most tests want, and its clients. Loopback is
opened for peers (test_turn_namespaces.py has addresses that need no such thing), and replies are
not limited but where a test is about that."""

import os
import pathlib
import random
import struct
import subprocess

from relay import SLOW, Relay
from turn import Client, TcpPath, UdpPath

USERS = 'user:pass', 'bob:word'
SECRET = 'north'


def own_ip():
    """For relays with a range of ports of their own, whatever else runs on this host."""
    return '127.%d.%d.%d' % (random.randrange(200, 250), random.randrange(250),
                             random.randrange(1, 250))


def flags(listen=('127.0.0.1:0',), users=USERS, secrets=(SECRET,), allow=('127.0.0.0/8',),
          replies=0):
    out = ['--turn-realm', 'realm']
    for name, values in (('--listen-turn', listen), ('--turn-user', users),
                         ('--turn-secret', secrets), ('--turn-allow-peer', allow)):
        for value in values:
            out += [name, value]
    return out + ['--turn-replies-per-ip', replies]


class Turnd:
    """See relay.Relay, whose `options` are taken too."""

    def __init__(self, directory, *more, listen=('127.0.0.1:0',), users=USERS, secrets=(SECRET,),
                 allow=('127.0.0.0/8',), replies=0, drain=0, **options):
        self.relay = Relay(directory, *flags(listen, users, secrets, allow, replies), *more,
                           preset='turn', listen=None, drain=drain, **options)
        self.clients = []

    def start(self):
        self.relay.start()
        return self

    @property
    def at(self):
        return self.relay.turn

    def _client(self, path, options):
        client = Client(path, **options)
        self.clients.append(client)
        return client

    def udp(self, source=None, port=0, at=None, **options):
        return self._client(UdpPath(at or self.at, source, port), options)

    def tcp(self, source=None, port=0, at=None, **options):
        return self._client(TcpPath(at or self.at, source, port), options)

    def client(self, kind, **options):
        """kind: 'udp' or 'tcp', for tests that run over both."""
        return getattr(self, kind)(**options)

    def forget(self):
        """Closes the clients of a test that has ended."""
        for client in self.clients:
            client.close()
        self.clients = []

    def grown_kib(self, before):
        """Of its memory; instrumented builds keep what was freed, so there it is no figure."""
        return self.relay.rss_kib() - before if SLOW == 1 else 0

    def finish(self):
        """Ends with status 0, and nothing is left behind."""
        self.forget()
        relay = self.relay
        if relay.proc and relay.running():
            relay.check()
            assert relay.stop() == 0, relay.log()[-4000:]
            assert 'left behind' not in relay.log(), relay.log()[-4000:]
        relay.kill()


class Clock:
    """The clocks of a daemon that runs with `env`, by tests/shim/clock_shift.c: lets time pass."""

    def __init__(self, directory):
        source = pathlib.Path(__file__).resolve().parents[1] / 'shim' / 'clock_shift.c'
        library, self.path = directory / 'clock_shift.so', directory / 'clock_shift'
        subprocess.run(['cc', '-shared', '-fPIC', '-O1', '-o', str(library), str(source)],
                       check=True)
        self.path.write_bytes(bytes(16))
        self.env = {'LD_PRELOAD': str(library), 'CLOCK_SHIFT': str(self.path),
                    'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'}
        self.ahead = 0

    def step(self, seconds):
        """More of them have passed than really have. Whoever sleeps finds out when it wakes."""
        self.ahead += seconds
        with open(self.path, 'r+b') as f:
            f.write(struct.pack('=qq', self.ahead, self.ahead))
