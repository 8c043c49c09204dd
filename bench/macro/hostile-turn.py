# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run hostile-turn: what floods of malformed messages do to the CPU that other clients'
datagrams cost. bench/README.md explains the method."""
import json
import mmap
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from macro import hostile, report
from macro.report import show, spread
from macro.servers import ROOT, Bench, Failed, Missing, log
from macro.turn import SECRET, TurnBench

BAR = 1.10  # others' CPU per datagram may be this many times what it is without the flood
SETTLE_S, WINDOW_S = .05, .25
DELAY_MAX = .10  # of a window in which the server waited for its core: a neighbour had it
TIMES = 4        # as many windows are tried for as many as are wanted
BURST_MS = {"others": 1, "flood": 2}
FOES_AT = ",".join(f"127.66.0.{n}" for n in range(1, 21))

# What others send: ChannelData to peers. Options of the generator; datagrams per second.
OTHERS = {"singles": (["--allocations", 64, "--train", 1, "--size", 120], 10_000, 40_000),
          "trains": (["--allocations", 16, "--train", 16, "--size", 1200], 48_000, 192_000)}

# Ops per second: of datagrams, units and bytes a rate that takes a tenth to a fifth of the server's
# core, and so of the connections.
KINDS = {kind: 30_000 for kind in (
    "random", "empty", "truncated", "length", "cookie", "fingerprint", "allocate", "limited",
    "method", "class", "orphan", "unknown", "duplicate", "integrity", "nonce", "channel",
    "channel-length", "send", "stranger", "mixed", "tcp-units")}
KINDS |= {"oversize": 20_000, "huge": 1_000, "peers": 10_000, "tcp-slow": 20_000, "tcp-half": 2_000,
          "tcp-garbage": 2_000, "tcp-open": 2_000}
SLOTS = {"tcp-slow": 200, "tcp-half": 1000, "tcp-garbage": 200, "tcp-open": 200}


class HostileBench(TurnBench):
    def __init__(self, opt):
        Bench.__init__(self, opt)  # nobody else's server is needed
        self.veth, self.loop, self.coturn = None, None, {}


class Load(hostile.Load):
    """One run of load-turn, and the page of its counts."""

    def __init__(self, bench, server, *args):
        fd, self.path = tempfile.mkstemp(prefix="sluice-bench-page-")
        os.ftruncate(fd, 512)
        self.page = mmap.mmap(fd, 512)
        os.close(fd)
        command = [bench.bin / "load-turn", "--to", f"{server.address}:{server.port}", "--secret",
                   SECRET, "--json", "--quiet", "--sleep", "--warm", 0, "--duration", 3600,
                   "--counters", self.path, *args]
        self.process = subprocess.Popen(
            [str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, bench.load_core))


def softirq_s():
    """The kernel's threads that finish network work which nobody's call did."""
    total = 0
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().startswith("ksoftirqd/"):
                total += int((comm.parent / "schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


# "calm" is as many Binding indications, which any client may send, in the flood's place.
STATES = ("low", "high", "calm low", "calm high", "flood low", "flood high", "flood")
PAIRS = (("low", "high"), ("calm low", "calm high"), ("flood low", "flood high"),
         ("low", "flood low"), ("flood high", "flood"))


def usage(pid):
    """CPU of all threads, and of the kernel's for them; and what they waited for a core."""
    cpu, delay = softirq_s(), 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = map(int, (task / "schedstat").read_text().split())
        cpu, delay = cpu + ran / 1e9, delay + waited / 1e9
    return cpu, delay


def window(server, state, rates, others, flood, calm):
    """One window in a state. Paused means: no new sends; who is there stays."""
    others.set("rate", rates["high" in state])
    others.set("pause", state == "flood")
    flood.set("pause", "flood" not in state)
    calm.set("pause", "calm" not in state)
    time.sleep(SETTLE_S)
    began, at = time.monotonic(), usage(server.process.pid)
    received, ops = others.received, flood.ops
    time.sleep(WINDOW_S)
    got, done = others.received - received, flood.ops - ops
    cpu, delay = (now - then for now, then in zip(usage(server.process.pid), at))
    s = time.monotonic() - began
    if delay > DELAY_MAX * s:  # then the server works in other portions than it would
        return None
    return {"cpu": cpu / s, "per_s": got / s, "ops": done / s}


def both(taken, a, b):
    """Windows of the same round that are worth something."""
    return [(x, y) for x, y in zip(taken[a], taken[b]) if x and y]


def enough(taken, wanted):
    return all(len(both(taken, a, b)) >= wanted for a, b in PAIRS)


def measure(bench, kind, others):
    args, *rates = OTHERS[others]
    flags = ["--turn-replies-per-ip", 50] if kind == "limited" else []
    server = bench.turn("sluice", flags=flags)
    loads = []
    try:
        loads.append(Load(bench, server, *args, "--batch", 1, "--peers", 4, "--rate", rates[0],
                          "--burst-ms", BURST_MS["others"]))
        loads[0].until(lambda: loads[0].received > rates[0] // 10, "others")
        loads.append(Load(bench, server, "--foe", "allocate" if kind == "limited" else kind,
                          "--rate", KINDS[kind], "--slots", SLOTS.get(kind, 16), "--bind", FOES_AT,
                          "--burst-ms", BURST_MS["flood"]))
        loads.append(Load(bench, server, "--foe", "keepalive", "--rate", KINDS[kind], "--slots", 16,
                          "--bind", FOES_AT, "--burst-ms", BURST_MS["flood"]))
        for load in loads[1:]:
            load.until(lambda: load.ops > KINDS[kind] // 10, kind)
        taken = {state: [] for state in STATES}
        wanted = 2 * bench.opt.rounds
        for r in range(TIMES * wanted):
            if enough(taken, wanted) or (r >= wanted and not enough(taken, 1)):
                break
            for i in range(len(STATES)):
                state = STATES[(r + i) % len(STATES)]
                taken[state].append(window(server, state, rates, *loads))
        if not enough(taken, max(3, wanted // 2)):
            raise Failed(f"{kind}: neighbours had the server's core")
        told, _ = loads[1].stop(), loads[2].stop()
        kept = loads[0].stop()  # exit status 0: what came was what had been sent
    finally:
        for load in loads:
            load.kill()
        server.stop()
    return row_of(kind, others, rates, taken, told, kept)


def slopes(pairs, per_op, rates):
    """CPU-seconds per further datagram, round by round, without what a different number of ops
    costs."""
    return [(h["cpu"] - l["cpu"] - per_op * (h["ops"] - l["ops"])) / (h["per_s"] - l["per_s"])
            for l, h in pairs if h["per_s"] - l["per_s"] > (rates[1] - rates[0]) / 4]


def row_of(kind, others, rates, taken, told, kept):
    """As in hostile.py: the flood's own cost is taken beside others, where it wakes nobody."""
    per_op = statistics.median((f["cpu"] - l["cpu"]) / f["ops"]
                               for l, f in both(taken, "low", "flood low") if f["ops"])
    without = slopes(both(taken, "low", "high"), 0, rates)
    calm = slopes(both(taken, "calm low", "calm high"), 0, rates)
    beside = slopes(both(taken, "flood low", "flood high"), per_op, rates)
    if min(len(without), len(calm), len(beside)) < 3:
        raise Failed(f"{kind}: the generator had too little of its core to load the server")
    # All of it together may not cost more than its parts do alone.
    sums = [(b["cpu"] - f["cpu"]) / b["per_s"] for b, f in both(taken, "flood high", "flood")
            if b["per_s"]]
    whole = [h["cpu"] / h["per_s"] for h in taken["high"] if h and h["per_s"]]

    def of(state, key):
        return statistics.median(w[key] for w in taken[state] if w)

    def ns(values):
        return spread([1e9 * v for v in values])
    return {"kind": kind, "others": others, "without": ns(without), "calm": ns(calm),
            "beside": ns(beside), "ratio": statistics.median(beside) / statistics.median(without),
            "calm_ratio": statistics.median(beside) / statistics.median(calm),
            "sum_ratio": statistics.median(sums) / statistics.median(whole),
            "us_per_op": 1e6 * per_op,
            "us_per_op_alone": 1e6 * of("flood", "cpu") / of("flood", "ops"),
            "ops_per_s": of("flood high", "ops"), "flood_share": of("flood", "cpu"),
            "per_s": of("high", "per_s"), "per_s_beside": of("flood high", "per_s"),
            "lost": kept["lost"], "sent": kept["total_sent"], "answers": told["answers"],
            "windows": len(without),
            "opened": told["opened"], "ended": told["ended"]}


def over(row):
    return max(row["ratio"], row["calm_ratio"], row["sum_ratio"]) >= BAR


def text_of(res):
    m, parts = res["machine"], []
    parts.append(f"# hostile-turn\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux "
                 f"{m['kernel']}, commit {m['commit']}{' with changes' if m['changed'] else ''}, load "
                 f"at the start {m['load']}; {2 * res['rounds']} windows of {WINDOW_S} s in each "
                 "state, without those in which the server waited for its core longer than "
                 f"{DELAY_MAX:.0%} of the time; median [quartiles].")
    for others, (_, low, high) in OTHERS.items():
        rows = [r for r in res["floods"] if r["others"] == others]
        if rows:
            parts.append(f"## Others send {others}, {low} and {high} datagrams a second: ns of CPU "
                         "per further one\n\n" + report.table(
                ["flood", "without", "beside as many keepalives", "beside the flood",
                 f"÷ without (bar {BAR})", f"÷ keepalives (bar {BAR})", "sum of parts", "ops/s",
                 "µs per op", "alone", "flood's share of a core", "others' lost"],
                [[r["kind"], show(r["without"], 0), show(r["calm"], 0), show(r["beside"], 0),
                  f"{r['ratio']:.2f}", f"{r['calm_ratio']:.2f}", f"{r['sum_ratio']:.2f}",
                  f"{r['ops_per_s']:.0f}", f"{r['us_per_op']:.2f}",
                  f"{r['us_per_op_alone']:.2f}", f"{r['flood_share']:.2f}",
                  f"{1e6 * r['lost'] / max(1, r['sent']):.0f} in a million"] for r in rows]))
    if res["failures"]:
        parts.append("## Failures\n\n" + "\n".join("- " + f for f in res["failures"]))
    return "\n\n".join(parts)


def run(opt):
    """--only takes singles and trains, and kinds of floods."""
    words = opt.only.split(",") if opt.only else []
    if any(w not in OTHERS and w not in KINDS for w in words):
        print("groups: " + ", ".join([*OTHERS, *KINDS]), file=sys.stderr)
        return 0 if opt.only == "list" else 2
    kinds = [w for w in words if w in KINDS] or list(KINDS)
    groups = [w for w in words if w in OTHERS] or list(OTHERS)
    try:
        bench = HostileBench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    res = {"name": "hostile-turn", "machine": report.machine(ROOT), "rounds": opt.rounds,
           "floods": [], "failures": bench.failures}
    try:
        for others in groups:
            for kind in kinds:
                try:
                    row = measure(bench, kind, others)
                except Failed as e:  # a neighbour had the core; the others may be luckier
                    bench.failures.append(f"{others}: {e}")
                    log("FAILED " + bench.failures[-1])
                    continue
                res["floods"].append(row)
                log(f"{others}, {kind}: {row['ratio']:.2f} times, {row['calm_ratio']:.2f} of "
                    f"keepalives, sum {row['sum_ratio']:.2f}" +
                    (", over the bar" if over(row) else ""))
    finally:
        bench.close()
    report.write(opt.out, "hostile-turn", res, text_of(res), {})
    print(json.dumps(res, indent=1) if opt.json else text_of(res))
    return 1 if bench.failures or any(over(r) for r in res["floods"]) else 0
