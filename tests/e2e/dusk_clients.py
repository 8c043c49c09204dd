"""The Dusk client of tests/interop/dusk-rust, and relays for it: ours under --preset dusk, or, with
SLUICE_DUSK_SERVER=rust, the original's crates (first ask whether a red test is red there, too)."""

import os
import subprocess
import threading
import time

import pytest

from clients import Client, Refused, command_of
from relay import SLOW, Relay
from turnd import own_ip

REFERENCE = os.environ.get('SLUICE_DUSK_SERVER') == 'rust'
ours_only = pytest.mark.skipif(REFERENCE, reason='what the original does not do')

SYNC, DIRECTORY, FEDERATION = 'dusk/sync', 'dusk/directory', 'dusk/relay/federation'


class Patient(Client):
    """`expect` looks at all that happened since the last `ask`, in whatever order."""

    def __init__(self, name, *options):
        self.since = 0
        super().__init__(name, *options)

    def ask(self, *words):
        self.since = len(self.events)
        self.say(*words)
        return self

    def seen(self, name, since=None, **fields):
        return [event for event in self.events[self.since if since is None else since:]
                if event['ev'] == name and
                all(event.get(key) == value for key, value in fields.items())]

    def expect(self, name, timeout=15, since=None, count=1, errors=True, **fields):
        """The first event (or as many) of that name and those fields, as soon as it is there."""
        since = self.since if since is None else since
        end = time.monotonic() + timeout * SLOW
        while True:
            found = self.seen(name, since, **fields)
            if len(found) >= count:
                return found[0] if count == 1 else found[:count]
            failed = self.seen('error', since) if errors else []
            if failed:
                raise Refused(failed[0])
            if time.monotonic() > end or self.proc.poll() is not None:
                raise TimeoutError('no %d of %s %s: %s; stderr: %s' % (
                    count, name, fields, self.events[max(0, since - 2):][-30:],
                    ''.join(self.stderr[-5:])))
            time.sleep(0.01)

    def hears(self, live, topic):
        """Until either side knows that the other is subscribed."""
        self.expect('subscribed', since=0, peer=live.peer, topic=topic)
        time.sleep(0.3)  # what it said itself is on the way


class Gossiper(Patient):
    """js or go, subscribed to a topic through one relay."""

    def __init__(self, name, live, topic):
        super().__init__(name, *(['gossip'] if name == 'js' else []))
        self.ask('subscribe', topic).expect('subscribing')
        self.ask('dial', live.address).expect('dialed')
        self.hears(live, topic)


class Dusk(Patient):
    def __init__(self, seed=None, refresh_ms=None):
        options = [] if seed is None else ['seed=%s' % seed]
        if refresh_ms is not None:
            options.append('refresh-ms=%d' % refresh_ms)
        super().__init__('dusk', *options)

    def day(self, live, *, namespaces=(), watched=(), name=None, timeout=30):
        """What it does when it is started: all is queued, and then it reserves."""
        for namespace in namespaces:
            self.say('namespace', namespace)
        for namespace in watched:
            self.say('watch', namespace)
        if name is not None:
            self.say('name', name)
        self.ask('reserve', live.address)
        return self.expect('reserved', timeout=timeout)

    def found(self, query):
        """{peer: row} of a search in the directory."""
        self.ask('dir-search', query)
        return {row['peer_id']: row for row in self.expect('dir-search')['results']}

    def discovered(self, namespace=None):
        """{peer: registration}"""
        self.ask('discover', *([] if namespace is None else [namespace]))
        event = self.expect('discovered', namespace='*' if namespace is None else namespace)
        return {row['peer']: row for row in event['registrations']}

    def registered(self, namespace, *ttl):
        self.ask('register', namespace, *ttl)
        return self.expect('registered', namespace=namespace)

    def circuits(self, peer, since=0):
        """Connections to another client that were opened, by whichever side."""
        return self.seen('connected', since, peer=peer, relayed=True)


class Reference:
    """The relay of tests/interop/dusk-rust, as far as relay.Relay's users here need it."""

    def __init__(self, directory, ip, env):
        self.data, self.env = directory / 'data', dict(os.environ, **env)
        self.listen, self.proc = '/ip4/%s/tcp/0' % ip, None

    def start(self):
        command = command_of('dusk') or pytest.skip('dusk is not built: run tests/interop/setup')
        self.proc = subprocess.Popen(
            [command, 'relay', 'data=%s' % self.data, 'listen=%s' % self.listen], env=self.env,
            stdout=subprocess.PIPE, text=True)
        self.address = self.proc.stdout.readline().split(': ')[1].strip()
        self.bare, self.peer = self.address.split('/p2p/')
        self.listen = self.bare
        threading.Thread(target=self.proc.stdout.read, daemon=True).start()
        return self

    def stop(self):
        self.proc.kill()
        self.proc.wait()
        return 0

    kill = stop

    def check(self):
        assert self.proc.poll() is None


class DuskRelay:
    """One process with both doors, at an address of its own, that can be ended and started again at
    the same one."""

    def __init__(self, directory, *flags, turn=True, env=None):
        self.ip, self.turn = own_ip(), turn
        env = dict({'DUSK_TURN_PUBLIC_IP': self.ip, 'DUSK_TURN_REALM': 'dusk.example'}
                   if turn else {}, **(env or {}))
        if REFERENCE:
            self.live = Reference(directory, self.ip, env)
            return
        turn_flags = ['--listen-turn', self.ip + ':3478', '--turn-allow-peer', '127.0.0.0/8',
                      '--turn-replies-per-ip', 0] if turn else ['--listen-turn', 'off']
        self.live = Relay(directory, '--listen-p2p', self.ip + ':0', '--listen-dig', 'off',
                          *turn_flags, *flags, preset='dusk', listen=None, http=None, env=env)

    def __getattr__(self, name):
        return getattr(self.live, name)

    def start(self):
        self.live.start()
        if not REFERENCE:
            words = self.live.bare.split('/')
            at = self.live.argv.index('--listen-p2p') + 1
            self.live.argv[at] = '%s:%s' % (words[2], words[4])
        return self

    def finish(self):
        if REFERENCE:
            return self.live.stop()
        if self.live.running():
            self.live.check()
            assert self.live.stop() == 0, self.live.log()[-4000:]
        return self.live.kill()
