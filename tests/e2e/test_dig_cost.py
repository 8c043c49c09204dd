"""Issue 5: foes at the DIG door at flood rate (tools/load_dig_foe.c), and pairs beside them who lose
nothing; and, where the machine is quiet, pay for each message what they paid before
(bench/macro/hostile-dig.py). Bounds in bytes: test_dig_hostile.py."""

import collections
import json
import pathlib
import subprocess

import pytest

from relay import BUILD, SLOW
from test_load_dig import COUNTS, LOAD, Counted

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 0.5

# Per second, and from how many; the counters that it moves, by how much for a hundred ops at least;
# whether the relay ends its connections; whether it takes a megabyte or two, which sockets keep.
Kind = collections.namedtuple('Kind', 'rate conns moves ends much',
                              defaults=(16, {}, False, False))
ERRORS = 'sluice_dig_errors_total'
KINDS = {
    'not-reading': Kind(20000, 4, {'sluice_dig_held_total': 0,
                                   'sluice_dig_lost_total{kind="message"}': 0}, much=True),
    'excludes': Kind(100, moves={'sluice_dig_broadcasts_total': 80}),
    'networks': Kind(20000, 4, {'sluice_dig_messages_total': 80}, ends=True),
    'half-open': Kind(1000, 100, {'sluice_dig_connections_ended_total{cause="request_head"}': 5},
                      ends=True),
    'junk': Kind(10000, 100, {ERRORS: 70}),
    'pings': Kind(20000),
    'bad-json': Kind(10000, moves={ERRORS: 80}),
    'fragments': Kind(40000, moves={'sluice_dig_messages_total': 1}),
    'unknown-target': Kind(10000, moves={ERRORS: 80}),
}


def start(at, *args, seconds=SECONDS):
    start.seed += 1  # other ids each time
    command = [LOAD, '--to', '%s:%d' % at, '--json', '--quiet', '--sleep', '--warm', 0, '--seed',
               start.seed, '--duration', seconds, *args]
    return subprocess.Popen([str(a) for a in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


start.seed = 1000


def finish(proc):
    try:
        out, err = proc.communicate(timeout=60 * SLOW)
    finally:
        proc.kill()
    assert proc.returncode == 0, (out, err)
    return json.loads(out)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """A queue is short, so that who does not read is soon full."""
    with Counted(tmp_path_factory.mktemp('dig'), '--dig-bytes-per-conn', 0,
                 '--dig-max-bytes-per-conn', 0, '--dig-queue-messages', 64) as counted:
        yield counted


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', KINDS)
def test_dig_others_lose_nothing_beside_foes(server, kind):
    what = KINDS[kind]
    rate = max(1, what.rate // SLOW)
    before = server.metrics()
    pairs = start(server.at, '--connections', 8, '--rate', 1000 // SLOW, '--window', 32,
                  seconds=SECONDS + 0.2)
    foe = finish(start(server.at, '--foe', kind, '--rate', rate, '--connections', what.conns,
                       '--burst-ms', 2))
    told = finish(pairs)
    now = server.metrics()
    print(kind, foe, told['received'], told['latency_us'])
    assert foe['ops'] >= rate * SECONDS / 2, 'that was no flood'
    assert not any(told[c] for c in COUNTS) and told['received'] > 100 // SLOW
    assert foe['heard'] > 0 and foe['refused'] == 0
    assert bool(foe['ended']) == what.ends
    for name, share in () if what.much and SLOW > 1 else what.moves.items():
        assert now[name] - before[name] > share * foe['total_ops'] / 100, name
    server.settle(lambda: server.metrics()['sluice_dig_connections'] == 0)
    server.settle(lambda: server.metrics()['sluice_dig_networks'] == 0)


def test_dig_foes_have_names():
    done = subprocess.run([LOAD, '--to', '127.0.0.1:1', '--foe', 'no-such'], capture_output=True,
                          text=True)
    assert done.returncode == 2 and all(kind in done.stderr for kind in KINDS)


# ---- what it costs others -----------------------------------------------------------------------

OTHERS_CPU = 1.10  # times what it is without the foes
NOISE = 0.05       # no claim is finer


def measured(out, rounds, *kinds):
    """{kind: times}, by bench/run; nothing of what it could not measure."""
    subprocess.run([ROOT / 'bench' / 'run', 'hostile-dig', '--rounds', str(rounds), '--build',
                    BUILD, '--out', out, '--only', ','.join(kinds)], timeout=1800)
    path = out / 'hostile-dig.json'
    rows = json.loads(path.read_text())['floods'] if path.exists() else []
    return {row['kind']: max(row['ratio'], row['sum_ratio']) for row in rows}


@pytest.mark.long  # neighbours decide whether it can be measured at all
@pytest.mark.skipif(SLOW > 1, reason='instrumented code costs something else')
def test_dig_cpu_of_others_beside_each_kind(tmp_path):
    """What was too much, or could not be measured because the server had to wait for its core, is
    asked once more, for longer."""
    bar = OTHERS_CPU + NOISE
    times = measured(tmp_path / 'first', 5, *KINDS)
    again = [kind for kind in KINDS if times.get(kind, bar) >= bar]
    if again:
        for kind, ratio in measured(tmp_path / 'again', 12, *again).items():
            times[kind] = min(times.get(kind, ratio), ratio)
    print(times)
    assert all(ratio < bar for ratio in times.values()), times
    if set(times) != set(KINDS):
        pytest.skip('neighbours had the core: run it again on a machine that is quiet')
