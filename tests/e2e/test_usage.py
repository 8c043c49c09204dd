"""descord.md §10, check 26, and §8.3: what each peer had of the relay, and that a restart keeps it."""

import json
import subprocess

import pytest

from circuit import join, reserve
from relay import SLOW, SLUICECTL
from wire import base58


def usage(relay, *words):
    """What sluicectl says, {peer: row}. It reads the store itself."""
    done = subprocess.run([SLUICECTL, '--data', relay.data, '--json', 'usage', *words],
                          capture_output=True, text=True, timeout=20 * SLOW, env=relay.env)
    assert done.returncode == 0, done.stderr
    return {row['peer']: row for row in map(json.loads, done.stdout.splitlines())}


def carry(source, target, forth, back):
    near, far = join(source, target)
    near.send(bytes(forth))
    far.send(bytes(back))
    assert len(far.recv(forth)) == forth and len(near.recv(back)) == back
    near.close_write()
    far.close_write()
    near.wait_eof()
    far.wait_eof()


@pytest.mark.sanitize
@pytest.mark.tsan
def test_descord_26_totals_of_peers_after_a_restart(start, placement):
    relay = start(preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        names = [base58(one.key.peer_id) for one in (source, target)]
        reserve(target)
        carry(source, target, 100000, 70000)
        carry(source, target, 1000, 0)
    assert relay.stop() == 0
    before = usage(relay)
    assert before.keys() == set(names)
    assert [before[name]['circuits'] for name in names] == [2, 2]
    assert [before[name]['in_bytes'] for name in names] == [101000, 70000]
    assert [before[name]['out_bytes'] for name in names] == [70000, 101000]
    again = start(preset='descord', data=relay.data)
    assert usage(again) == before == usage(again, '1'), 'while it runs, too'
    with again.connect(key=source.key) as source, again.connect() as target:
        reserve(target)
        carry(source, target, 11, 5)
    again.until(lambda: usage(again)[names[0]]['circuits'] == 3, 10, 'it is added within seconds')
    assert usage(again)[names[0]]['in_bytes'] == 101011


def test_descord_26_nothing_is_kept_with_usage_off(start):
    relay = start('--usage', 'off', '--rendezvous', 'on', preset='descord')
    with relay.connect() as source, relay.connect() as target:
        reserve(target)
        carry(source, target, 10, 10)
    assert relay.stop() == 0
    assert usage(relay) == {}


def test_descord_26_a_table_for_people(start):
    relay = start()
    with relay.connect() as source, relay.connect() as target:
        reserve(target)
        carry(source, target, 3000, 10)
    assert relay.stop() == 0
    done = subprocess.run([SLUICECTL, '--data', relay.data, 'usage', '31'], capture_output=True,
                          text=True, env=relay.env)
    assert done.returncode == 0 and '2 peers' in done.stdout, done
    assert base58(source.key.peer_id) in done.stdout and '2.9 KiB' in done.stdout
    for days in '0', '32', 'x':
        done = subprocess.run([SLUICECTL, '--data', relay.data, 'usage', days],
                              capture_output=True, text=True, env=relay.env)
        assert done.returncode == 2 and '1 to 31' in done.stderr
