"""One relay daemon as an operator runs it: started by its flags, watched through its stdout,
its log, its HTTP door and sluicectl, stopped by SIGTERM."""

import http.client
import itertools
import json
import os
import pathlib
import queue
import re
import resource
import signal
import socket
import subprocess
import threading
import time

import rawp2p
from wire import unbase58

BUILD = pathlib.Path(os.environ.get('SLUICE_BUILD') or
                     pathlib.Path(__file__).resolve().parents[2] / 'build').resolve()
SLUICE = BUILD / 'engine' / 'sluice'
SLUICECTL = BUILD / 'tools' / 'sluicectl'
# Instrumented builds are several times slower; waits that only guard against hanging grow.
SLOW = 5 if os.environ.get('SLUICE_SANITIZER') else 1

_addresses = itertools.count(1)


def next_ip():
    """A loopback address of a /24 of its own, so that limits per address and subnet stay out of
    tests that are not about them."""
    n = next(_addresses)
    return '127.%d.%d.7' % (1 + n // 250 % 100, 1 + n % 250)


class Relay:
    def __init__(self, directory, *flags, preset=None, shards=2, data=None, listen='127.0.0.1:0',
                 http='127.0.0.1:0', drain=1, env=None, name='relay', nofile=None):
        self.dir = pathlib.Path(directory)
        self.data = pathlib.Path(data) if data else self.dir / 'data'
        self.log_path = self.dir / (name + '.log')
        self.argv = [str(SLUICE)]
        if preset:
            self.argv += ['--preset', preset]
        self.argv += ['--shards', str(shards), '--data', str(self.data), '--drain-secs', str(drain)]
        if listen:
            self.argv += ['--listen-p2p', listen, '--listen-dig', 'off', '--listen-turn', 'off']
        if http:
            self.argv += ['--listen-http', http]
        self.argv += [str(flag) for flag in flags]
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith(('SLUICE_', 'DUSK_')) and k != 'RUST_LOG'}
        self.env.update(env or {})
        self.nofile = nofile
        self.lines, self.proc = [], None
        self.addresses, self.turns, self.http = [], [], None

    # -- life
    def start(self, timeout=20):
        self.dir.mkdir(parents=True, exist_ok=True)
        self.lines, self.addresses, self.turns, self.http = [], [], [], None
        with open(self.log_path, 'ab') as log:
            self.proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stderr=log,
                                         stdout=subprocess.PIPE, env=self.env, text=True,
                                         preexec_fn=self._limit_files if self.nofile else None)
        self._arrived = queue.Queue()
        threading.Thread(target=self._read, args=(self.proc.stdout, self.lines, self._arrived),
                         daemon=True).start()
        end = time.monotonic() + timeout * SLOW
        while not self._ready():
            try:
                line = self._arrived.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise AssertionError('not ready in %d s: %s\n%s' % (
                    timeout, self.lines, self.log())) from None
            if line is None:
                raise AssertionError('ended at start with %r:\n%s\n%s' % (
                    self.proc.wait(), '\n'.join(self.lines), self.log()))
        return self

    def _limit_files(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

    @staticmethod
    def _read(stdout, lines, arrived):
        """Of one life: its end may be read when the next one has begun."""
        for line in stdout:
            lines.append(line.rstrip('\n'))
            arrived.put(line)
        arrived.put(None)

    def _ready(self):
        self.addresses = [line.split(': ', 1)[1] for line in self.lines
                          if line.strip().startswith('relay address: ')]
        self.turns = [line.split(': ', 1)[1].rsplit(':', 1) for line in self.lines
                      if line.startswith('turn address: ')]
        found = [line.split(': ', 1)[1] for line in self.lines if line.startswith('http address: ')]
        self.http = found[0] if found else None
        return any(line.startswith('try it:') for line in self.lines) and \
            (self.addresses or self.turns)

    @property
    def turn(self):
        """(host, port) of the first TURN door."""
        return self.turns[0][0].strip('[]'), int(self.turns[0][1])

    @property
    def address(self):
        """/ip4/…/tcp/…/p2p/…"""
        return self.addresses[0]

    @property
    def bare(self):
        return self.address.split('/p2p/')[0]

    @property
    def peer(self):
        return self.address.split('/p2p/')[1]

    @property
    def peer_id(self):
        return unbase58(self.peer)

    @property
    def at(self):
        words = self.address.split('/')
        return words[2], int(words[4])

    def running(self):
        return self.proc is not None and self.proc.poll() is None

    def stop(self, timeout=20):
        """SIGTERM; the exit status is the caller's to judge."""
        if self.running():
            self.proc.send_signal(signal.SIGTERM)
        try:
            return self.proc.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError('still there %d s after SIGTERM\n%s' % (timeout, self.log()))

    def kill(self):
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()

    def check(self):
        """Alive, and nothing in the log that a sanitizer or an assertion would write."""
        assert self.running(), 'the relay ended with %r\n%s' % (
            self.proc.poll(), self.log()[-4000:])
        bad = re.search(r'ASSERT|Sanitizer|runtime error:', self.log())
        assert not bad, self.log()[-4000:]

    def rss_kib(self):
        text = pathlib.Path('/proc/%d/status' % self.proc.pid).read_text()
        return int(re.search(r'VmRSS:\s+(\d+)', text).group(1))

    def cpu_ticks(self):
        text = pathlib.Path('/proc/%d/stat' % self.proc.pid).read_text()
        return sum(int(word) for word in text.rsplit(') ', 1)[1].split()[11:13])

    # -- log
    def log(self):
        return self.log_path.read_text(errors='replace') if self.log_path.exists() else ''

    def wait_log(self, pattern, timeout=10, count=1):
        """The first `count` matches of a regular expression, as soon as they are there."""
        end = time.monotonic() + timeout * SLOW
        while True:
            found = [m.group(0) for m in re.finditer(pattern, self.log())]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise AssertionError('%d of %d %r in the log:\n%s' % (
                    len(found), count, pattern, self.log()[-6000:]))
            time.sleep(0.02)

    def events(self, name=None):
        """Of a relay with --log-format json."""
        out = []
        for line in self.log().splitlines():
            if line.startswith('{'):
                event = json.loads(line)
                if name is None or event.get('event') == name:
                    out.append(event)
        return out

    def wait_events(self, name, count=1, timeout=10):
        end = time.monotonic() + timeout * SLOW
        while len(self.events(name)) < count:
            if time.monotonic() > end:
                raise AssertionError('%d of %d %s:\n%s' % (
                    len(self.events(name)), count, name, self.log()[-6000:]))
            time.sleep(0.02)
        return self.events(name)

    # -- doors
    def get(self, path, timeout=10):
        """(status, headers, text) of the HTTP door."""
        host, port = self.http.rsplit(':', 1)
        connection = http.client.HTTPConnection(host.strip('[]'), int(port), timeout=timeout * SLOW)
        try:
            connection.request('GET', path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """{name or name{labels}: value}"""
        status, _, text = self.get('/metrics')
        assert status == 200
        return {line.rsplit(' ', 1)[0]: float(line.rsplit(' ', 1)[1])
                for line in text.splitlines() if line and not line.startswith('#')}

    def ctl(self, *words):
        """The lines of sluicectl --json, one object each; the last says that all went well."""
        argv = [str(SLUICECTL), '--data', str(self.data), '--json', *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20 * SLOW, env=self.env)
        assert done.returncode == 0, '%s: %d\n%s' % (' '.join(words), done.returncode, done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert rows[-1]['ok'], rows[-1]
        return rows

    def conns(self):
        return self.ctl('conns')[:-1]

    def circuits(self):
        return self.ctl('circuits')[:-1]

    def shards_by_remote(self):
        """{'ip:port': shard}"""
        return {row['remote']: row['shard'] for row in self.conns()}

    def until(self, ready, timeout=10, what='condition'):
        """Polls something that the relay reports until it holds; returns it."""
        end = time.monotonic() + timeout * SLOW
        while True:
            got = ready()
            if got:
                return got
            if time.monotonic() > end:
                raise AssertionError('%s did not come in %d s: %r\n%s' % (
                    what, timeout, got, self.log()[-3000:]))
            time.sleep(0.05)

    # -- clients
    def tcp(self, shard=None, source=None, at=None, timeout=10):
        """A fresh connection that the relay accepted on the wanted shard. SO_REUSEPORT chooses by
        ports and addresses, so it is tried until it fits."""
        for _ in range(40):
            tries = [self._tcp(source, at, timeout) for _ in range(1 if shard is None else 3)]
            if shard is None:
                return tries[0]
            fit = self._fitting(tries, shard)
            for tcp in tries:
                if tcp is not fit:
                    tcp.close()
            if fit:
                return fit
        raise AssertionError('no connection on shard %d' % shard)

    def _tcp(self, source, at, timeout):
        host, port = at or self.at
        local = (source or next_ip(), 0) if ':' not in host else None
        return rawp2p.Tcp(None, sock=socket.create_connection(
            (host, port), timeout * SLOW, source_address=local))

    def _fitting(self, tries, shard):
        names = {'%s:%d' % tcp.local: tcp for tcp in tries}
        for _ in range(100):
            where = self.shards_by_remote()
            if any(where.get(name) == shard for name in names):
                return next(tcp for name, tcp in names.items() if where.get(name) == shard)
            if all(name in where for name in names):
                return None
            time.sleep(0.02)
        raise AssertionError('sluicectl conns does not show %s' % sorted(names))

    def connect(self, key=None, shard=None, source=None, inline=False, **session):
        """A whole raw client on the wanted shard."""
        live = rawp2p.connect(None, key, inline, tcp=self.tcp(shard, source), **session)
        assert live.relay_id == self.peer_id
        return live


def makes(kind, live):
    """For a fixture: a maker of peers of that kind on a shared relay, which is sound at the end."""
    made = []

    def make(key=None, **options):
        made.append(kind(live, key, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()
    live.check()
