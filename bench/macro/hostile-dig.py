# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run hostile-dig: what foes at the DIG door do to the CPU that other people's messages cost.
bench/README.md explains the method."""
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time

from macro import hostile, report
from macro.report import show, spread
from macro.servers import ROOT, Bench, Failed, Missing, Server, free_port, log

BAR = 1.10  # others' CPU per message may be this many times what it is without the foes
SETTLE_S, WINDOW_S = .05, .25
DELAY_MAX = .10  # of a window in which the server waited for its core: a neighbour had it
TIMES = 4        # as many windows are tried for as many as are wanted
BURST_MS = {"others": 1, "foes": 2}
OTHERS, SIZE, LOW, HIGH = 64, 1024, 4_000, 40_000  # connections; bytes; messages per second

# Ops per second, a rate that takes some hundredths to a tenth of the server's core; and foes.
KINDS = {"not-reading": 10_000, "excludes": 200, "networks": 10_000, "half-open": 2_000,
         "junk": 20_000, "pings": 150_000, "bad-json": 20_000, "fragments": 150_000,
         "unknown-target": 20_000}
SLOTS = {"half-open": 1000, "junk": 100}


class Load(hostile.Load):
    """One run of load-dig, and the page of its counts."""

    def __init__(self, bench, server, *args):
        fd, self.path = tempfile.mkstemp(prefix="sluice-bench-page-")
        os.ftruncate(fd, 512)
        self.page = mmap.mmap(fd, 512)
        os.close(fd)
        command = [bench.bin / "load-dig", "--to", f"127.0.0.1:{server.port}", "--json", "--quiet",
                   "--sleep", "--warm", 0, "--duration", 3600, "--counters", self.path,
                   "--server-pid", server.process.pid, *args]
        self.process = subprocess.Popen(
            [str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, bench.load_core))


def relay(bench):
    """Without the limits that would keep a foe from being one: they are tested elsewhere, and here
    would only lower his rate."""
    data = tempfile.mkdtemp(prefix="sluice-bench-data-")
    return Server("sluice", [bench.bin / "sluice", "--data", data, "--listen-p2p", "off",
                             "--listen-turn", "off", "--listen-dig", "127.0.0.1:@PORT@",
                             "--listen-http", f"127.0.0.1:{free_port()}", "--shards", 1,
                             "--log-level", "warn", "--dig-messages-per-conn", 0,
                             "--dig-bytes-per-conn", 0, "--dig-max-bytes-per-conn", 0,
                             "--dig-sweep-secs", 600, "--dig-liveness-secs", 700,
                             "--dig-idle-timeout-secs", 800],
                  bench.server_core, relay="dig", data=data)


STATES = ("low", "high", "foes low", "foes high", "foes")
PAIRS = (("low", "high"), ("foes low", "foes high"), ("low", "foes low"), ("foes high", "foes"))


def usage(pid):
    """{thread: [CPU, what it waited for a core]}, in seconds."""
    threads = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            threads[task] = [int(word) / 1e9 for word in f.read().split()[:2]]
    return threads


def window(server, state, others, foes):
    """One window in a state. Paused means: no new sends; who is there stays."""
    others.set("rate", HIGH if "high" in state else LOW)
    others.set("pause", state == "foes")
    foes.set("pause", "foes" not in state)
    time.sleep(SETTLE_S)
    began, at = time.monotonic(), usage(server.process.pid)
    received, ops = others.received, foes.ops
    time.sleep(WINDOW_S)
    got, done = others.received - received, foes.ops - ops
    spent = [(ran - at[task][0], waited - at[task][1])
             for task, (ran, waited) in usage(server.process.pid).items() if task in at]
    s, cpu = time.monotonic() - began, sum(ran for ran, _ in spent)
    ran, waited = max(spent)
    # Its own threads have the same core and are no neighbours: one that answers a handshake waits
    # for one that relays, and the other way round, by design.
    if waited - (cpu - ran) > DELAY_MAX * s:  # then the server works in other portions than it would
        return None
    return {"cpu": cpu / s, "per_s": got / s, "ops": done / s}


def both(taken, a, b):
    """Windows of the same round that are worth something."""
    return [(x, y) for x, y in zip(taken[a], taken[b]) if x and y]


def enough(taken, wanted):
    return all(len(both(taken, a, b)) >= wanted for a, b in PAIRS)


def measure(bench, kind):
    server = relay(bench)
    loads = []
    try:
        loads.append(Load(bench, server, "--connections", OTHERS, "--size", SIZE, "--rate", LOW,
                          "--burst-ms", BURST_MS["others"]))
        loads[0].until(lambda: loads[0].received > LOW // 10, "others")
        loads.append(Load(bench, server, "--foe", kind, "--rate", KINDS[kind], "--connections",
                          SLOTS.get(kind, 16), "--burst-ms", BURST_MS["foes"]))
        loads[1].until(lambda: loads[1].ops > KINDS[kind] // 10, kind)
        taken = {state: [] for state in STATES}
        wanted = 2 * bench.opt.rounds
        for r in range(TIMES * wanted):
            if enough(taken, wanted) or (r >= wanted and not enough(taken, 1)):
                break
            for i in range(len(STATES)):
                state = STATES[(r + i) % len(STATES)]
                taken[state].append(window(server, state, *loads))
        if not enough(taken, max(3, wanted // 2)):
            raise Failed(f"{kind}: neighbours had the server's core")
        told = loads[1].stop()
        kept = loads[0].stop()  # exit status 0: all arrived, as it has to
    finally:
        for load in loads:
            load.kill()
        server.stop()
    return row_of(kind, taken, told, kept)


def slopes(pairs, per_op):
    """CPU-seconds per further message, round by round, without what a different number of ops
    costs."""
    return [(h["cpu"] - l["cpu"] - per_op * (h["ops"] - l["ops"])) / (h["per_s"] - l["per_s"])
            for l, h in pairs if h["per_s"] - l["per_s"] > (HIGH - LOW) / 4]


def row_of(kind, taken, told, kept):
    """As in hostile.py: the foes' own cost is taken beside others, where they wake nobody."""
    per_op = statistics.median((f["cpu"] - l["cpu"]) / f["ops"]
                               for l, f in both(taken, "low", "foes low") if f["ops"])
    without = slopes(both(taken, "low", "high"), 0)
    beside = slopes(both(taken, "foes low", "foes high"), per_op)
    if min(len(without), len(beside)) < 3:
        raise Failed(f"{kind}: the generator had too little of its core to load the relay")
    # All of it together may not cost more than its parts do alone.
    sums = [(b["cpu"] - f["cpu"]) / b["per_s"] for b, f in both(taken, "foes high", "foes")
            if b["per_s"]]
    whole = [h["cpu"] / h["per_s"] for h in taken["high"] if h and h["per_s"]]

    def of(state, key):
        return statistics.median(w[key] for w in taken[state] if w)

    def us(values):
        return spread([1e6 * v for v in values])
    return {"kind": kind, "without": us(without), "beside": us(beside),
            "ratio": statistics.median(beside) / statistics.median(without),
            "sum_ratio": statistics.median(sums) / statistics.median(whole),
            "us_per_op": 1e6 * per_op,
            "us_per_op_alone": 1e6 * of("foes", "cpu") / max(1, of("foes", "ops")),
            "ops_per_s": of("foes high", "ops"), "foes_share": of("foes", "cpu"),
            "per_s": of("high", "per_s"), "per_s_beside": of("foes high", "per_s"),
            "lost": kept["lost"], "sent": kept["total_sent"], "windows": len(without),
            "opened": told["opened"], "ended": told["ended"], "refused": told["refused"]}


def over(row):
    return max(row["ratio"], row["sum_ratio"]) >= BAR


def text_of(res):
    m = res["machine"]
    parts = [f"# hostile-dig\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, "
             f"commit {m['commit']}{' with changes' if m['changed'] else ''}, load at the start "
             f"{m['load']}; {2 * res['rounds']} windows of {WINDOW_S} s in each state, without those in "
             f"which the server waited for its core longer than {DELAY_MAX:.0%} of the time; median "
             "[quartiles].",
             f"## {OTHERS // 2} pairs send {LOW} and {HIGH} messages of {SIZE} bytes a second: µs of CPU "
             "per further one\n\n" + report.table(
                 ["foes", "without", "beside", f"times (bar {BAR})", "sum of parts", "ops/s",
                  "µs per op", "alone", "foes' share of a core", "others' per s without", "beside",
                  "lost"],
                 [[r["kind"], show(r["without"]), show(r["beside"]), f"{r['ratio']:.2f}",
                   f"{r['sum_ratio']:.2f}", f"{r['ops_per_s']:.0f}", f"{r['us_per_op']:.2f}",
                   f"{r['us_per_op_alone']:.2f}", f"{r['foes_share']:.2f}", f"{r['per_s']:.0f}",
                   f"{r['per_s_beside']:.0f}", r["lost"]] for r in res["floods"]])]
    if res["failures"]:
        parts.append("## Failures\n\n" + "\n".join("- " + f for f in res["failures"]))
    return "\n\n".join(parts)


def run(opt):
    """--only takes kinds of foes."""
    words = opt.only.split(",") if opt.only else []
    if any(w not in KINDS for w in words):
        print("groups: " + ", ".join(KINDS), file=sys.stderr)
        return 0 if opt.only == "list" else 2
    try:
        bench = Bench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    res = {"name": "hostile-dig", "machine": report.machine(ROOT), "rounds": opt.rounds,
           "floods": [], "failures": bench.failures}
    try:
        for kind in words or KINDS:
            try:
                row = measure(bench, kind)
            except Failed as e:  # a neighbour had the core; the others may be luckier
                bench.failures.append(str(e))
                log("FAILED " + bench.failures[-1])
                continue
            res["floods"].append(row)
            log(f"{kind}: {row['ratio']:.2f} times, sum {row['sum_ratio']:.2f}" +
                (", over the bar" if over(row) else ""))
    finally:
        bench.close()
    report.write(opt.out, "hostile-dig", res, text_of(res), {})
    print(json.dumps(res, indent=1) if opt.json else text_of(res))
    return 1 if bench.failures or any(over(r) for r in res["floods"]) else 0
