#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Soak: one relay, thousands of peers that come and go for half an hour, and then the accounts.

    tests/soak/soak.py [--duration S] [--peers N] [--churn N] [--dials N] [--circuits N] [--seed N]
                       [--json FILE]

The load is `load-p2p --mode soak`; here the relay is started, its memory sampled, and at the end
every counter asked. Exit status 0: all held; 1: what did not is said; 2: bad usage."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'e2e'))
from relay import BUILD, SLOW, Relay  # noqa: E402

FLAT = 0.02       # memory may be so much higher at the end, and at its highest
SURGE = 2 / 3     # of the warm-up: more of everything, so that tables reach their size
BEAT_S = 10       # a line of progress
LIST_S = 60       # sluicectl lists everything
RESERVATION_S = 180  # the load renews after 60 to 120 s

GAUGES = ('relay_connected_peers', 'relay_peers_with_reservations', 'relay_peers_with_circuits',
          'relay_active_circuits', 'sluice_reservations', 'sluice_connections{transport="tcp"}',
          'sluice_connections_secured', 'sluice_streams', 'sluice_queue_bytes',
          'sluice_buffer_bytes')
# Nobody here breaks a rule or meets a limit.
NEVER = ('sluice_circuits_closed_total{reason="limit_bytes"}',
         'sluice_circuits_closed_total{reason="limit_time"}',
         'sluice_circuits_closed_total{reason="drain"}',
         'sluice_circuits_closed_total{reason="memory"}',
         'sluice_connections_refused_total{limit="total"}',
         'sluice_connections_refused_total{limit="ip"}',
         'sluice_connections_refused_total{limit="subnet"}',
         'sluice_connections_refused_total{limit="peer"}',
         'sluice_connections_refused_total{limit="denied"}',
         'sluice_connections_ended_total{cause="yamux"}',
         'sluice_connections_ended_total{cause="record"}',
         'sluice_connections_ended_total{cause="slow"}',
         'sluice_connections_ended_total{cause="ping_flood"}',
         'sluice_handshake_failures_total{stage="noise"}',
         'sluice_handshake_failures_total{stage="timeout"}',
         'sluice_accept_errors_total', 'sluice_chunks_dry_total', 'sluice_streams_refused_total')


def flags():
    """A starved machine is no reason for a handshake to fail: the load has more patience."""
    return ['--handshake-timeout-secs', 60, '--stop-timeout-secs', 30,
            '--reservation-secs', RESERVATION_S, '--max-circuits-per-peer', 1024,
            '--log-level', 'warn']


# ---- memory ---------------------------------------------------------------------------------

def resident(pid):
    """(resident, anonymous) KiB."""
    sums = {}
    for line in pathlib.Path('/proc/%d/smaps_rollup' % pid).read_text().splitlines()[1:]:
        name, value = line.split(':')
        sums[name] = int(value.split()[0])
    return sums['Rss'], sums['Anonymous']


def slope_per_hour(samples):
    times = [t for t, _, _ in samples]
    middle = statistics.fmean(times)
    mean = statistics.fmean(rss for _, rss, _ in samples)
    below = sum((t - middle) ** 2 for t in times)
    return sum((t - middle) * (rss - mean) for t, rss, _ in samples) / below * 3600 if below else 0


def judge_memory(samples, warm, slack_kib):
    """samples: (seconds since all stood, resident, anonymous KiB), until the last circuits end."""
    kept = [s for s in samples if s[0] >= warm]
    span = min(180.0, (samples[-1][0] - warm) / 3)
    first = [s for s in kept if s[0] <= warm + span]
    last = [s for s in kept if s[0] >= samples[-1][0] - span]
    figures = {
        'samples': len(kept), 'warm_s': round(warm, 1), 'span_s': round(span, 1),
        'first_kib': statistics.median(s[1] for s in first),
        'last_kib': statistics.median(s[1] for s in last),
        'peak_kib': max(s[1] for s in kept),
        'first_anonymous_kib': statistics.median(s[2] for s in first),
        'last_anonymous_kib': statistics.median(s[2] for s in last),
        'slope_kib_per_hour': round(slope_per_hour(kept), 1),
        'most_kib': round(statistics.median(s[1] for s in first) * (1 + FLAT) + slack_kib),
    }
    wrong = []
    for which in ('last_kib', 'peak_kib'):
        if figures[which] > figures['most_kib']:
            wrong.append('memory grew: %s is %d, more than %d (first: %d)' % (
                which, figures[which], figures['most_kib'], figures['first_kib']))
    return figures, wrong


# ---- accounts -------------------------------------------------------------------------------

def judge_counters(m, load):
    """The relay's metrics after all have left, against each other and against the load's own."""
    wrong = []

    def same(what, a, b):
        if a != b:
            wrong.append('%s: %d against %d' % (what, a, b))

    def within(what, low, value, high):
        if not low <= value <= high:
            wrong.append('%s: %d is not within %d and %d' % (what, value, low, high))

    for name in GAUGES:
        same(name, m[name], 0)
    for name in NEVER:
        same(name, m[name], 0)
    tcp = '{transport="tcp"}'
    same('connections accepted and closed', m['sluice_connections_accepted_total' + tcp],
         m['sluice_connections_closed_total' + tcp])
    opened = m['libp2p_relaysvc_reservations_total{type="opened"}']
    same('reservations opened and closed', opened,
         m['libp2p_relaysvc_reservations_total{type="closed"}'])
    same('reservations closed by cause', opened,
         sum(v for k, v in m.items() if k.startswith('sluice_reservations_ended_total')))
    circuits = m['sluice_circuits_opened_total']
    same('circuits opened and closed by reason', circuits,
         sum(v for k, v in m.items() if k.startswith('sluice_circuits_closed_total')))
    same('circuits opened and CONNECT with OK', circuits,
         m['libp2p_relaysvc_connection_request_response_status_total{status="ok",code="100"}'])
    # A connection that is reset at once may never be accepted.
    within('connections', load['came'] - load['quit'][1] - load['quit'][2],
           m['sluice_connections_accepted_total' + tcp], load['came'])
    within('reservations', load['reserved'], opened, load['came'] + load['lapsed'])
    within('renewals', load['renewed'], m['sluice_reservations_renewed_total'],
           load['renewed'] + load['lapsed'] + sum(load['left']))
    within('circuits', load['head_bytes'] // 8, circuits, load['dials'])
    # What came out whole went in whole; of what was cut, no more was counted than was sent.
    for way, (direction, heads, cut_heads) in enumerate((
            ('src_to_dst', load['head_bytes'], load['cut_head_bytes']), ('dst_to_src', 0, 0))):
        clean = load['clean_bytes'][way] + heads - cut_heads
        within('bytes ' + direction, clean + load['cut_received'][way],
               m['sluice_circuit_bytes_total{direction="%s"}' % direction],
               clean + load['cut_sent'][way] + cut_heads)
    return wrong


class Load:
    """load-p2p, its last line of progress and its failures."""

    def __init__(self, relay, o):
        host, port = relay.at
        self.argv = [str(BUILD / 'tools' / 'load-p2p'), '%s:%d' % (host, port), '--mode', 'soak',
                     '--server-pid', str(relay.proc.pid), '--peers', str(o.peers),
                     '--churn', str(o.churn), '--dials', str(o.dials),
                     '--circuits', str(o.circuits), '--duration', str(o.duration),
                     '--warm', str(o.warm * SURGE),
                     '--seed', str(o.seed)]
        self.proc = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True)
        self.line, self.failures, self.began = '', [], None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.proc.stderr:
            self.line = line.rstrip('\n')
            if self.line.startswith(('failure: ', 'load-p2p: ')):
                self.failures.append(self.line)
                print(self.line, flush=True)
            elif self.line.startswith('soak: '):
                self.began = self.began or time.monotonic()

    def result(self):
        """What it says at its end; None if it could not."""
        out = self.proc.stdout.read()
        self.proc.wait()
        self.reader.join()
        try:
            return json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            return None


def watch(relay, load, o, say):
    """Until the load ends; (samples, circuits seen on one shard and across)."""
    samples, placed = [], [0, 0]
    began = time.monotonic()
    beat, listing = began, began + LIST_S
    while load.proc.poll() is None:
        now = time.monotonic()
        if now - began > o.duration + 400 * SLOW:
            load.proc.kill()
            raise AssertionError('the load does not end: ' + load.line)
        if load.began and now - load.began <= o.duration:
            samples.append((now - load.began, *resident(relay.proc.pid)))
        if now >= beat:
            beat += BEAT_S
            rss = resident(relay.proc.pid)[0]
            say('%4d s, relay %.1f MiB: %s' % (now - began, rss / 1024, load.line))
            relay.metrics()
        if now >= listing:
            listing += LIST_S
            relay.conns()
            for row in relay.circuits():
                placed[row['src_shard'] != row['dst_shard']] += 1
        time.sleep(min(2, o.duration / 60))
    return samples, placed


def soak(relay, o, say=print):
    """The whole of it on a relay that was started with flags(). What did not hold is in
    ['wrong']."""
    descriptors = len(os.listdir('/proc/%d/fd' % relay.proc.pid))
    load = Load(relay, o)
    try:
        samples, placed = watch(relay, load, o, say)
        counts = load.result()
    finally:
        if load.proc.poll() is None:
            load.proc.kill()
            load.proc.wait()
    relay.check()
    wrong = list(load.failures)
    figures = {'load': counts, 'placed': {'same': placed[0], 'across': placed[1]}}
    if not counts:
        return dict(figures, wrong=wrong + ['the load ended with %d' % load.proc.returncode])
    if not counts['ok']:
        wrong.append('%d bytes or ends were wrong, %d other failures' % (
            counts['mismatches'], counts['failures']))
    for _ in range(100):  # what the last FINs set off takes a moment
        metrics = relay.metrics()
        left = len(os.listdir('/proc/%d/fd' % relay.proc.pid)) - descriptors
        if not left and not any(metrics[name] for name in GAUGES):
            break
        time.sleep(0.1)
    wrong += judge_counters(metrics, counts)
    if left:
        wrong.append('%+d descriptors' % left)
    figures['memory'], grew = judge_memory(samples, o.warm, o.slack_kib)
    figures['samples'] = [(round(t, 1), rss, anon) for t, rss, anon in samples]
    figures['metrics'] = metrics
    return dict(figures, wrong=wrong + grew)


def ended(relay):
    """Stops the relay; what was wrong with that. It names what it left behind itself."""
    status = relay.stop()
    wrong = re.findall(r'left behind.*', relay.log())
    if status != 0:
        wrong.append('the relay ended with %d:\n%s' % (status, relay.log()[-2000:]))
    return wrong


def options(argv=()):
    p = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    p.add_argument('--duration', type=float, default=1800, help='seconds after all stand (1800)')
    p.add_argument('--peers', type=int, default=5000, help='reserved at once (5000)')
    p.add_argument('--churn', type=int, default=60, help='leave and come back per second (60)')
    p.add_argument('--dials', type=int, default=60, help='circuits begun per second (60)')
    p.add_argument('--circuits', type=int, default=1000, help='open at once, at most (1000)')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--warm', type=float,
                   help='seconds before memory counts (a tenth); for most of it there is more of '
                        'everything')
    p.add_argument('--slack-kib', type=int, default=0, help='memory may also grow by this (0)')
    p.add_argument('--json', help='write everything to this file')
    o = p.parse_args(argv)
    if o.warm is None:
        o.warm = o.duration / 10
    if o.warm > o.duration / 2:
        p.error('--warm takes more than half of --duration')
    return o


def describe(figures):
    load, memory = figures['load'], figures['memory']
    gib = sum(load['clean_bytes']) / 2**30
    lines = [
        'peers: %(peers)d at once, %(came)d came, %(renewed)d renewals, %(lapsed)d let theirs run '
        'out' % load,
        'left: %s; while coming: %d' % (
            ', '.join('%s %d' % pair for pair in zip(
                ('kill', 'close', 'fin', 'goaway', 'resets', 'polite'), load['left'])),
            sum(load['quit'])),
        'circuits: %d dialled, %d to their end (%.2f GiB compared), %d cut on purpose, %d with a '
        'peer that left; refused while the target moved: %d' % (
            load['dials'], load['circuits_clean'], gib, sum(load['circuits_cut']),
            load['circuits_cut_by_churn'], load['dials_refused'] + load['dials_cut']),
        'seen on one shard: %(same)d, across: %(across)d' % figures['placed'],
        'wrong bytes or ends: %(mismatches)d, other failures: %(failures)d' % load,
        'from connecting to reserved, ms: p50 %(p50).1f, p99 %(p99).1f, max %(max).1f' %
        load['arrival_ms'],
        'CPU: relay %.0f %%, load %.0f %% of a core' % (
            100 * load['server_cpu_s'] / load['seconds'],
            100 * load['generator_cpu_s'] / load['seconds']),
        'memory: %.2f MiB in the first %d s after %d s, %.2f in the last (%+.2f %%), most %.2f, '
        'slope %+.0f KiB/h' % (
            memory['first_kib'] / 1024, memory['span_s'], memory['warm_s'],
            memory['last_kib'] / 1024, 100 * (memory['last_kib'] / memory['first_kib'] - 1),
            memory['peak_kib'] / 1024, memory['slope_kib_per_hour']),
    ]
    return lines


def main():
    o = options(sys.argv[1:])

    def say(line):
        print('soak: ' + line, flush=True)
    with tempfile.TemporaryDirectory(prefix='sluice-soak-') as directory:
        relay = Relay(directory, *flags()).start()
        try:
            figures = soak(relay, o, say)
            figures['wrong'] += ended(relay)
        finally:
            relay.kill()
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(figures) + '\n')
    if figures.get('memory'):
        for line in describe(figures):
            say(line)
    for line in figures['wrong']:
        say('✘ ' + line)
    say('✘ %d things did not hold' % len(figures['wrong']) if figures['wrong'] else '✔ all held')
    return 1 if figures['wrong'] else 0


if __name__ == '__main__':
    sys.exit(main())
