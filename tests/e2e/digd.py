"""A daemon that is a DIG relay, with the original's flags, and its clients. Limits per source and
per connection are off but where a test is about them."""

import json
import os
import re
import socket
import time

from dig import Conn, fresh_net
from relay import SLOW, Relay, next_ip

LOOSE = {'max-connections-per-ip': 0, 'registrations-per-ip-per-sec': 0,
         'max-registrations-per-ip': 0, 'messages-per-conn-per-sec': 0, 'bytes-per-conn-per-sec': 0,
         'max-relayed-bytes-per-conn': 0, 'ban-threshold': 0}
DOORS = {'listen': 'dig', 'health-listen': 'http', 'stun-listen': 'turn',
         'dashboard-listen': 'redirect'}


def flags(**options):
    """{'max_connections': 5} as the command line has it; None leaves one out."""
    return [word for name, value in options.items() if value is not None
            for word in ('--' + name.replace('_', '-'), str(value))]


class Digd(Relay):
    """host: of all four doors; a door can be named as a whole (`listen='[::]:0'`). loose=False
    keeps the limits of the original. More options are flags in the original's spelling."""

    def __init__(self, directory, *more, host='127.0.0.1', loose=True, shards=2, drain=0, env=None,
                 name='dig', nofile=None, **options):
        asked = {door: host + ':0' for door in DOORS}
        asked.update(LOOSE if loose else {})
        asked.update({key.replace('_', '-'): value for key, value in options.items()})
        super().__init__(directory, *flags(**asked), *more, preset='dig', shards=shards,
                         listen=None,
                         http=None, drain=drain, env=env, name=name, nofile=nofile)
        if not env or 'DIG_RELAY_LISTEN' not in env:
            self.env = {k: v for k, v in self.env.items()
                        if not k.startswith('DIG_RELAY_') or k in (env or {})}
        self.doors, self.clients = {}, []

    def _ready(self):
        super()._ready()
        found = [re.match(r'(\w+) address: (.*):(\d+)$', line) for line in self.lines]
        self.doors = {m[1]: (m[2].strip('[]'), int(m[3])) for m in reversed(found) if m}
        return 'dig' in self.doors and any(line.startswith('try it:') for line in self.lines)

    def door(self, name, host=None):
        """(host, port); the wildcard is not an address to connect to."""
        at = self.doors[DOORS[name]]
        wild = {'::': '::1', '0.0.0.0': '127.0.0.1'}
        return host or wild.get(at[0], at[0]), at[1]

    @property
    def at(self):
        return self.door('listen')

    # -- clients
    def tcp(self, at=None, **options):
        conn = Conn(at or self.at, **options)
        self.clients.append(conn)
        return conn

    def ws(self, at=None, source=None, tls=None, prelude=b'', rcvbuf=None, path='/', **head):
        """Upgraded, not registered."""
        conn = self.tcp(at, source=source, tls=tls, prelude=prelude, rcvbuf=rcvbuf)
        return conn.upgrade(path, **head)

    def peer(self, peer_id=None, net=None, at=None, source=None, tls=None, prelude=b'', rcvbuf=None,
             **members):
        """A registrant."""
        conn = self.ws(at, source, tls, prelude, rcvbuf)
        return conn.register(peer_id, net, **members).registered()

    def group(self, count, net=None):
        """So many registrants of one network, who have heard of each other."""
        net = net or fresh_net()
        out = [self.peer(net=net) for _ in range(count)]
        for i, conn in enumerate(out):
            for later in out[i + 1:]:
                conn.told('peer_connected', later.id)
        return out

    def fetch(self, path='/', door='listen', method='GET', at=None, raw=None, headers=(),
              source=None):
        """One exchange on a connection of its own, read to the end: (status, {header: value},
        body)."""
        head = raw or '\r\n'.join(['%s %s HTTP/1.1' % (method, path), 'Host: relay', *headers,
                                   'Connection: close', '', '']).encode()
        with Conn(at or self.door(door), source) as conn:
            conn.send(head)
            status, fields = conn.head()
            while conn.fill(conn.until()):
                pass
            assert len(dict(fields)) == len(fields), fields
            return int(status.split()[1]), dict(fields), bytes(conn.buffer)

    def json(self, path, **options):
        status, fields, body = self.fetch(path, **options)
        assert status == 200 and fields['content-type'] == 'application/json', (status, fields)
        assert int(fields['content-length']) == len(body), fields
        return json.loads(body)

    def stun(self, request, source=None, timeout=0.5, at=None):
        """The answer to a datagram, or None."""
        at = at or self.door('stun-listen')
        family = socket.AF_INET6 if ':' in at[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((source or ('::1' if ':' in at[0] else next_ip()), 0))
            sock.settimeout(timeout * SLOW)
            sock.sendto(request, at)
            try:
                return sock.recvfrom(2000)[0], sock.getsockname()
            except socket.timeout:
                return None, sock.getsockname()

    # -- figures
    def cpu_ns(self):
        """Of all its threads; the tick accounting of /proc/PID/stat is too coarse for messages."""
        total = 0
        for thread in os.listdir('/proc/%d/task' % self.proc.pid):
            with open('/proc/%d/task/%s/schedstat' % (self.proc.pid, thread),
                      encoding='ascii') as f:
                total += int(f.read().split()[0])
        return total

    def grown_kib(self, before):
        """Instrumented builds keep what was freed, so there it is no figure."""
        return self.rss_kib() - before if SLOW == 1 else 0

    def open_connections(self):
        """As /stats.json has it, without the one that asks."""
        return self.json('/stats.json')['open_connections'] - 1

    def settle(self, ready, timeout=10):
        """Polls until it holds."""
        end = time.monotonic() + timeout * SLOW
        while not ready():
            assert time.monotonic() < end, 'did not come in %d s\n%s' % (timeout,
                                                                         self.log()[-2000:])
            time.sleep(0.02)

    # -- ends
    def forget(self):
        """Closes the clients of a test that has ended."""
        for client in self.clients:
            client.close()
        self.clients = []

    def finish(self):
        """Ends with status 0, and nothing is left behind."""
        self.forget()
        if self.proc and self.running():
            self.check()
            assert self.stop() == 0, self.log()[-4000:]
            assert 'left behind' not in self.log(), self.log()[-4000:]
        self.kill()
