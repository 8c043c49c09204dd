"""The store under the daemon, whatever ends it: kill -9 under load, a full disk, a damaged file.
What a failure of power does is tests/durability's."""

import itertools
import pathlib
import random
import subprocess
import threading

import pytest

from circuit import join, reserve
from rdv import OK, UNAVAILABLE, Closed, Peer, Reply, begin, finish, fresh, lp, register
from relay import SLOW, SLUICECTL, Relay
from wire import Key

KILLS = 200 if SLOW == 1 else 20
STREAMS = 24  # registrations under way at a time
ROOMS = ['room/%d' % n for n in range(6)]


OK_HOP = 100


def store_is_sound(relay):
    done = subprocess.run([str(SLUICECTL), '--data', str(relay.data), 'store', 'check'],
                          capture_output=True, text=True, timeout=60 * SLOW, env=relay.env)
    assert done.returncode == 0, done.stdout + done.stderr


class Promises:
    """What was acknowledged for each (peer, namespace), and what was asked for since."""

    def __init__(self):
        self.kept, self.asked = {}, {}

    def ask(self, where, envelope):
        self.asked.setdefault(where, []).append(envelope)

    def acknowledge(self, where, envelope):
        """One place has one registration under way at a time: what was asked for before is over."""
        asked = self.asked[where]
        self.asked[where] = asked[asked.index(envelope) + 1:]
        self.kept[where] = envelope

    def check(self, rows):
        """rows: {(peer, namespace): envelope} as found."""
        for where, envelope in self.kept.items():
            assert where in rows, 'an acknowledged registration is lost'
            assert rows[where] in (envelope, *self.asked.get(where, ())), 'and so is its envelope'
        for where, envelope in rows.items():
            assert where in self.kept or envelope in self.asked.get(where, ()), 'nobody sent this'
        self.kept, self.asked = dict(rows), {}


def found(asker):
    rows = {}
    for room in ROOMS:
        for row in asker.walk(room, 500)[0]:
            assert (row.peer, room) not in rows, 'one registration twice'
            rows[row.peer, room] = row.record
    return rows


def load(relay, keys, promises, counter, dice):
    """Registrations one behind another until the relay is gone; how many were acknowledged. A peer
    has each of its namespaces in flight once, so that the order of answers is the order of acts."""
    done = 0
    peers = [Peer(relay, key) for key in keys]
    end = threading.Timer(dice.uniform(0, 0.05) * SLOW, relay.proc.kill)
    try:
        while True:
            flying = []
            for peer, room in itertools.islice(
                    itertools.product(peers, dice.sample(ROOMS, len(ROOMS))), STREAMS):
                envelope = peer.record(seq=next(counter), addrs=[
                    '/ip4/127.0.0.1/tcp/%d' % (n + 1) for n in range(dice.choice((1, 20, 200)))])
                promises.ask((peer.id, room), envelope)
                flying.append(((peer.id, room), envelope,
                               begin(peer.session, register(room, envelope))))
            if not end.ident:  # the load is there
                end.start()
            for where, envelope, stream in flying:
                raw = finish(stream)
                if raw is None:
                    return done
                if raw:
                    reply = Reply(raw)
                    assert reply.status == OK, reply.status
                    promises.acknowledge(where, envelope)
                    done += 1
    except Closed:
        return done
    finally:
        relay.proc.wait(20 * SLOW)
        for where, envelope, stream in flying:  # what had come before the end
            with stream.session.cond:
                raw = stream.take_message()
            if raw and Reply(lp(raw)).status == OK:
                promises.acknowledge(where, envelope)
                done += 1
        for peer in peers:
            peer.close()


def test_kill_under_load_loses_nothing_that_was_acknowledged(start):
    relay, dice = start(preset='dusk'), random.Random(6)
    promises, counter = Promises(), itertools.count(1)
    keys, done, busy = [Key() for _ in range(4)], 0, 0
    for _ in range(KILLS):
        acknowledged = load(relay, keys, promises, counter, dice)
        done += acknowledged
        busy += acknowledged > 0
        relay.start()
        with Peer(relay) as asker:
            promises.check(found(asker))
    assert busy > KILLS // 2, 'of %d kills %d came after an acknowledgement' % (KILLS, busy)
    assert len(promises.kept) == len(keys) * len(ROOMS)
    store_is_sound(relay)


# ---- a full disk ---------------------------------------------------------------------------------

def fill(peer, most=5000):
    """Registers until the store has no room; {namespace: envelope} of what was acknowledged."""
    kept, addrs = {}, ['/ip4/127.0.0.1/tcp/%d' % (n + 1) for n in range(390)]
    for n in range(most):
        ns, envelope = 'fill/%d' % n, peer.record(seq=n + 1, addrs=addrs)
        reply = peer.register(ns, envelope=envelope)
        if reply.status != OK:
            assert reply.status == UNAVAILABLE
            return kept
        kept[ns] = envelope
    raise AssertionError('no end of room')


def relays(relay):
    """A circuit, while nothing can be written."""
    with relay.connect(Key()) as one, relay.connect(Key()) as two:
        assert reserve(two).status == OK_HOP
        near, far = join(one, two)
        near.send(b'x' * 5000)
        assert far.recv(5000, 20 * SLOW) == b'x' * 5000


def everything_kept(peer, kept):
    for ns, envelope in kept.items():
        assert peer.found(ns).records == [envelope]


def test_a_full_store_refuses_what_adds_and_goes_on_with_all_else(start):
    relay = start('--store-max', 4, preset='dusk')
    key = Key()
    with Peer(relay, key) as peer:
        kept = fill(peer)
        assert len(kept) > 50
        relays(relay)
        everything_kept(peer, kept)
        for ns in list(kept)[:len(kept) // 2]:  # what makes room is never refused
            peer.unregister(ns)
            del kept[ns]
        relay.until(lambda: peer.register('again').status == OK, 20, 'room again')
    relay.kill()
    relay.start()
    with Peer(relay, key) as peer:
        everything_kept(peer, kept)
        assert peer.found('again').rows
    store_is_sound(relay)


def test_a_full_disk_refuses_what_adds_and_goes_on_with_all_else(tmp_path):
    """The disk is a tmpfs of the relay's own mount namespace; a file of the test's fills it."""
    data = tmp_path / 'data'
    data.mkdir()
    if subprocess.run(['unshare', '-m', 'true'], capture_output=True).returncode:
        pytest.skip('mount namespaces are not permitted here: run as root')
    relay = Relay(tmp_path, preset='dusk', data=data)
    relay.argv = ['unshare', '-m', 'sh', '-c',
                  'mount -t tmpfs -o size=24m none "$0" && chmod 700 "$0" && exec "$@"',
                  str(data), *relay.argv]
    relay.start()
    try:
        filler = pathlib.Path('/proc/%d/root%s/filler' % (relay.proc.pid, data))
        with Peer(relay) as peer:
            first = peer.registered('before')
            try:
                with filler.open('wb', buffering=0) as file:
                    while True:
                        file.write(bytes(1 << 16))
            except OSError as error:
                assert error.errno == 28, error
            assert peer.register('during').status == UNAVAILABLE
            relays(relay)
            everything_kept(peer, {'before': first})
            assert peer.found('during').rows == []
            filler.unlink()
            relay.until(lambda: peer.register('after').status == OK, 20, 'room again')
            everything_kept(peer, {'before': first})
        relay.check()
        assert relay.stop() == 0
    finally:
        relay.kill()


# ---- a damaged file ------------------------------------------------------------------------------

@pytest.mark.parametrize('how', ['torn', 'cut', 'foreign'])
def test_a_damaged_file_is_named_with_the_way_out(start, how):
    relay, ns = start(preset='dusk'), fresh()
    with Peer(relay) as peer:
        for n in range(200):
            peer.registered('%s/%d' % (ns, n))
    assert relay.stop() == 0
    file = relay.data / 'store.mdb'
    whole = file.read_bytes()
    damaged = {'torn': bytes(8192) + whole[8192:], 'cut': whole[:len(whole) // 4 * 3],
               'foreign': b'SQLite format 3\0' + whole[16:]}[how]
    file.write_bytes(damaged)
    done = subprocess.run(relay.argv, capture_output=True, text=True, env=relay.env,
                          timeout=20 * SLOW)
    assert done.returncode not in (0, -6, -11), done.stderr
    assert str(file) in done.stderr and 'move it away' in done.stderr, done.stderr
    assert file.read_bytes() == damaged, 'and it is left as it is'
    file.rename(relay.data / 'store.mdb.damaged')  # the way out
    relay.start()
    with Peer(relay) as peer:
        peer.registered(ns)
