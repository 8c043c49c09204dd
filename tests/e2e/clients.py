"""The real clients of tests/interop, driven over their line protocol."""

import functools
import json
import pathlib
import queue
import subprocess
import threading
import time

import pytest

from relay import SLOW

SETUP = pathlib.Path(__file__).resolve().parents[1] / 'interop' / 'setup'
NAMES = ['js', 'rust', 'go']          # the nine pairings
ALL = NAMES + ['descord']             # and the Descord-like one


@functools.lru_cache(None)
def command_of(name):
    done = subprocess.run([str(SETUP), '--where', name], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


class Refused(Exception):
    """The client reported an error; `status` is the relay's answer, 0 when it knows none."""

    def __init__(self, event):
        super().__init__(event)
        self.status = event.get('status', 0)


class Client:
    def __init__(self, name, *args):
        self.name = name
        command = command_of(name)
        if command is None:
            pytest.skip('the %s client is not built: run tests/interop/setup' % name)
        self.proc = subprocess.Popen([command, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True)
        self.events, self.queue, self.stderr = [], queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.stderr.extend(self.proc.stderr), daemon=True).start()
        self.peer = self.wait('id', timeout=30)['peer']

    def _read(self):
        for line in self.proc.stdout:
            event = json.loads(line)
            self.events.append(event)
            self.queue.put(event)
        self.queue.put({'ev': 'ended', 'what': 'the client ended'})

    def say(self, *words):
        self.proc.stdin.write(' '.join(str(w) for w in words) + '\n')
        self.proc.stdin.flush()

    def wait(self, *names, timeout=60, errors=True):
        """The next event of one of these names; an error raises unless it is waited for."""
        end = time.monotonic() + timeout * SLOW
        while True:
            try:
                event = self.queue.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError('%s: no %s; events: %s; stderr: %s' % (
                    self.name, names, self.events[-8:], ''.join(self.stderr[-5:]))) from None
            if event['ev'] in names:
                return event
            if event['ev'] == 'ended' or (event['ev'] == 'error' and errors):
                raise Refused(event)

    def relay_address(self, through):
        """Descord's client dials without a peer id (descord.md §7)."""
        return through.bare if self.name == 'descord' else through.address

    def reserve(self, through, timeout=30):
        self.say('reserve', self.relay_address(through))
        return self.wait('reserved', timeout=timeout)

    def dial(self, through, peer, timeout=30):
        self.say('dial', '%s/p2p-circuit/p2p/%s' % (through.address, peer))
        return self.wait('dialed', timeout=timeout)

    def transfer(self, through, peer, size, seed):
        self.say('transfer', '%s/p2p-circuit/p2p/%s' % (through.address, peer), size, seed)

    def quit(self):
        if self.proc.poll() is None:
            try:
                self.say('quit')
                self.proc.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                self.proc.kill()
                self.proc.wait()

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.quit()


def move(source, target, through, size, seed=7, timeout=120):
    """Both ends move `size` bytes to each other through the relay; raises unless all arrived."""
    source.transfer(through, target.peer, size, seed)
    a = source.wait('transferred', timeout=timeout)
    b = target.wait('transferred', timeout=timeout)
    assert a['sent'] == a['received'] == b['sent'] == b['received'] == size, (a, b)
    assert a['sent_sha256'] == b['received_sha256'], (a, b)
    assert b['sent_sha256'] == a['received_sha256'], (a, b)
    assert a['sent_sha256'] != b['sent_sha256'], 'an echo is no transfer'
    return a, b
