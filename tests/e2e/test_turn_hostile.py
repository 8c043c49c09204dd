"""turn.md §15 and §20 at flood rate: every class of malformed traffic (tools/load_turn_foe.c) gets
the answer that it is owed, or silence; memory stays where it was; and who is served goes on being
served, at the CPU per datagram that he costs without the flood (bench/macro/hostile-turn.py)."""

import collections
import json
import pathlib
import subprocess

import pytest

from relay import BUILD, SLOW
from turnd import SECRET, Turnd

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOAD = BUILD / 'tools' / 'load-turn'
RATE, SECONDS = 20000, 0.4

# What a class is owed: codes of answers; how many ops of a hundred are answered; the counters that
# move by the others; how many it sends in a second, from how many sockets.
Class = collections.namedtuple('Class', 'answers share drops rate slots')


def silent(*drops, rate=RATE, slots=16):
    return Class(set(), 0, drops, rate, slots)


def answered(*answers, share=100, drops=(), rate=RATE, slots=16):
    return Class(set(answers), share, drops, rate, slots)


CLASSES = {
    'random': silent('foreign', 'malformed', 'no_allocation'),
    'keepalive': silent(),
    'empty': silent('foreign'),
    'truncated': silent('foreign'),
    'length': silent('malformed'),
    'cookie': silent('foreign'),
    'fingerprint': silent('fingerprint'),
    'method': silent('method'),
    'class': silent('class', 'method'),
    'orphan': silent('no_allocation'),
    'channel': silent('no_channel'),
    'channel-length': silent('malformed'),
    'send': silent('no_permission'),
    'stranger': silent('no_permission'),
    'allocate': answered('401'),
    'unknown': answered('420'),
    'duplicate': answered('success'),
    'integrity': answered('401'),
    'nonce': answered('438'),
    'peers': answered('403', rate=5000),
    'oversize': answered('success', '401', '420', rate=10000),
    'huge': answered('success', '401', '420', rate=500),
    'mixed': answered('success', '401', '403', '420', '438', share=20),
    'tcp-units': answered('401', share=18,
                          drops=('method', 'class', 'fingerprint', 'no_allocation')),
    'tcp-slow': silent(slots=200),
    'tcp-half': silent(rate=1000, slots=200),
    'tcp-garbage': silent(rate=1000, slots=200),
    'tcp-open': silent(rate=1000, slots=200),
}


def start_load(at, *args):
    command = [LOAD, '--to', '%s:%d' % at, '--secret', SECRET, '--json', '--quiet', '--sleep',
               *args]
    return subprocess.Popen([str(a) for a in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def finish(proc, seconds=60 * SLOW):
    try:
        out, err = proc.communicate(timeout=seconds)
    finally:
        proc.kill()
    assert proc.returncode == 0, (out, err)
    return json.loads(out)


def flood(at, kind, what, *args, seconds=SECONDS):
    return start_load(at, '--foe', kind, '--rate', max(1, what.rate // SLOW), '--slots', what.slots,
                      '--burst-ms', 2, '--warm', 0, '--duration', seconds, '--bind',
                      '127.66.0.1,127.66.0.2,127.66.0.3,127.66.0.4', *args)


def others(at, seconds):
    """ChannelData to a peer and back, at a rate that leaves the machine to the flood."""
    return start_load(at, '--echo', '--allocations', 8, '--rate', 4000 // SLOW, '--size', 200,
                      '--train', 4, '--duration', seconds, '--warm', 0)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    turnd = Turnd(tmp_path_factory.mktemp('turn'), allow=('127.0.0.0/8', '127.0.0.1/32')).start()
    for kind in CLASSES:  # what the first of a kind touches stays
        finish(flood(turnd.at, kind, CLASSES[kind], seconds=0.05))
    finish(others(turnd.at, 0.05))
    yield turnd
    turnd.finish()


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', CLASSES)
def test_turn_16_turn_45_at_flood_rate(server, kind):
    what, relay = CLASSES[kind], server.relay
    names = ['sluice_turn_dropped_total{cause="%s"}' % cause for cause in what.drops]
    before, rss = relay.metrics(), relay.rss_kib()
    served = others(server.at, SECONDS)
    foe = finish(flood(server.at, kind, what))
    told = finish(served)
    now, grown = relay.metrics(), server.grown_kib(rss)
    answers = {code: n for code, n in foe['answers'].items() if n}
    print(kind, foe, told['lost'], 'of', told['total_sent'], '+%d KiB' % grown)
    assert foe['ops'] >= what.rate // SLOW * SECONDS / 2, 'that was no flood'
    assert set(answers) == what.answers and foe['strange'] == 0
    # The rest is what the door's socket dropped where the machine is busy with other tests.
    assert what.share * .6 <= 100 * sum(answers.values()) / foe['total_ops'] <= 100
    moved = sum(now[name] - before[name] for name in names)
    if names:
        assert moved >= foe['total_ops'] * (100 - what.share) / 100 * .6
        assert all(now[name] > before[name] for name in names)
    if kind == 'tcp-garbage':
        assert foe['ended'] >= foe['opened'] * .9, 'left open'
    if kind == 'tcp-slow':
        assert foe['ended'] == 0, 'half a message has its time'
    assert told['lost'] <= told['total_sent'] / 100
    assert told['mismatches'] == told['doubles'] == told['failed'] == 0
    assert grown < 1024
    relay.until(lambda: relay.metrics()['sluice_turn_allocations'] == 0, 5, 'nothing is left')
    relay.check()


def test_turn_44_at_flood_rate_a_stranger_is_told_little(turn_start):
    """Of 20 000 Allocates a second as many are answered as the limit has it, and who is served
    notices nothing."""
    turnd = turn_start(replies=10, allow=('127.0.0.0/8', '127.0.0.1/32'))
    served = others(turnd.at, SECONDS)
    foe = finish(start_load(turnd.at, '--foe', 'allocate', '--rate', RATE, '--burst-ms', 2,
                            '--warm', 0, '--duration', SECONDS, '--bind', '127.66.1.1'))
    told = finish(served)
    assert foe['answers'].keys() <= {'success', '401'} and foe['answers']['success'] == 0
    assert 5 <= foe['answers']['401'] <= 10 + 10 * (foe['seconds'] + .5)
    assert told['lost'] <= told['total_sent'] / 100


# ---- what it costs others -----------------------------------------------------------------------

OTHERS_CPU = 1.10  # times what it is without the flood
NOISE = 0.05       # no claim is finer (design.md)
NOISE_SHORT = 0.15 # of the few windows that the short run has


def measured(out, rounds, *only):
    """{(who sends, flood): times}, by bench/run; nothing of what it could not measure."""
    subprocess.run([ROOT / 'bench' / 'run', 'hostile-turn', '--rounds', str(rounds), '--build',
                    BUILD, '--out', out, '--only', ','.join(only)], timeout=3600)
    path = out / 'hostile-turn.json'
    rows = json.loads(path.read_text())['floods'] if path.exists() else []
    return {(row['others'], row['kind']): max(row['ratio'], row['calm_ratio'], row['sum_ratio'])
            for row in rows}


def check_cpu(tmp_path, kinds, bar, rounds):
    """What was too much, or could not be measured because the server had to wait for its core, is
    asked once more, for longer."""
    wanted = {(others, kind) for others in ('singles', 'trains') for kind in kinds}
    times = measured(tmp_path / 'first', rounds, 'singles', 'trains', *kinds)
    again = {pair for pair in wanted if times.get(pair, bar) >= bar}
    for others in sorted({pair[0] for pair in again}):
        got = measured(tmp_path / others, 2 * rounds, others, *(k for o, k in again if o == others))
        times.update({pair: min(times.get(pair, ratio), ratio) for pair, ratio in got.items()})
    print(times)
    assert all(ratio < bar for ratio in times.values()), times
    if set(times) != wanted:
        pytest.skip('neighbours had the core: run it again on a machine that is quiet')


@pytest.mark.long  # as of circuits: neighbours decide whether it can be measured at all
@pytest.mark.skipif(SLOW > 1, reason='instrumented code costs something else')
def test_cpu_of_others_beside_all_classes_at_once(tmp_path):
    check_cpu(tmp_path, ['mixed'], OTHERS_CPU + NOISE_SHORT, 3)


@pytest.mark.long
@pytest.mark.skipif(SLOW > 1, reason='instrumented code costs something else')
def test_cpu_of_others_beside_each_class(tmp_path):
    kinds = [kind for kind in CLASSES if kind not in ('mixed', 'keepalive')]
    check_cpu(tmp_path, kinds + ['limited'], OTHERS_CPU + NOISE, 4)
