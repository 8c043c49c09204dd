# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run hostile: what floods do to the CPU that other people's bytes cost, and how much of a core
one hostile connection can burn. bench/README.md explains the method."""
import json
import mmap
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from macro import report
from macro.report import show, spread
from macro.servers import Bench, Failed, Missing, Server, log

BAR = 1.10  # others' CPU per GiB may be this many times what it is without the flood
VICTIMS, LOW, HIGH = 16, 50_000_000, 300_000_000  # circuits; bytes per second over all of them
FOES = 16
SETTLE_S, WINDOW_S, BURST_MS = .05, .25, 20

# Ops per second over all foes: each flood alone takes some hundredths to a fifth of a core. Of random,
# oversize and halfopen an op is a connection.
KINDS = {"random": 150, "oversize": 150, "window": 3000, "syn": 200000, "ping": 50000,
         "rst": 300000, "tiny": 300000, "reserve": 5000, "connect": 5000, "halfopen": 2000}
SLOTS = {"halfopen": 4000}

# One connection, as fast as it goes and back at once when it was ended; and just within the budgets
# of limits.h (SYN_MS), where nothing ends it.
BURN = [(kind, 0) for kind in KINDS if kind != "halfopen"] + [("syn", 950), ("reserve", 950),
                                                              ("connect", 950)]


class Load:
    """One run of the generator and the page of its counts (tools/load_p2p.h)."""
    WORDS = ("pause", "received", "mismatches", "resets", "flowing", "ops", "opened", "ended", "live",
             "bytes", "stop", "rate")

    def __init__(self, bench, server, *args):
        fd, self.path = tempfile.mkstemp(prefix="sluice-bench-page-")
        os.ftruncate(fd, 512)
        self.page = mmap.mmap(fd, 512)
        os.close(fd)
        command = [bench.bin / "load-p2p", f"127.0.0.1:{server.port}", "--json", "--quiet", "--warm",
                   0, "--counters", self.path, "--server-pid", server.process.pid, *args]
        self.process = subprocess.Popen(
            [str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, bench.load_core))

    def __getattr__(self, name):
        return struct.unpack_from("=Q", self.page, 8 * self.WORDS.index(name))[0]

    def set(self, name, value):
        struct.pack_into("=Q", self.page, 8 * self.WORDS.index(name), value)

    def until(self, ready, what):
        end = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"{what}: {self.process.communicate()[1] if self.process.poll() else ''}")
            time.sleep(.01)

    def finish(self, timeout=90):
        try:
            out, err = self.process.communicate(timeout=timeout)
        finally:
            self.kill()
        if self.process.returncode:
            raise Failed(f"the generator ended with {self.process.returncode}: {err.strip()[-300:]} {out}")
        return json.loads(out)

    def stop(self):
        self.set("pause", 0)
        self.set("stop", 1)
        return self.finish()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        pathlib.Path(self.path).unlink(missing_ok=True)


def relay(bench, *flags):
    data = tempfile.mkdtemp(prefix="sluice-bench-data-")
    return Server("sluice", [bench.bin / "sluice", "--data", data, "--listen-p2p",
                             "127.0.0.1:@PORT@", "--listen-dig", "off", "--listen-turn", "off",
                             "--listen-http", "off", "--shards", 1, "--log-level", "warn", *flags],
                  bench.server_core, data=data)


def cpu_s(pid):
    """What the scheduler counted, over all threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


def attack(bench, server, kind, *args):
    return Load(bench, server, "--mode", "attack", "--attack", kind, "--slots",
                SLOTS.get(kind, FOES), "--net", 9, "--sources", 100, "--duration", 120, *args)


STATES = ("low", "high", "flood low", "flood high", "flood")


def window(server, state, victims, flood):
    """One window in a state. Paused means: no new sends; the connections stay."""
    victims.set("rate", HIGH if "high" in state else LOW)
    victims.set("pause", state == "flood")
    flood.set("pause", "flood" not in state)
    time.sleep(SETTLE_S)
    began, cpu = time.monotonic(), cpu_s(server.process.pid)
    received, ops = victims.received, flood.ops
    time.sleep(WINDOW_S)
    s = time.monotonic() - began
    return {"cpu": (cpu_s(server.process.pid) - cpu) / s,
            "gib": (victims.received - received) / (1 << 30) / s, "ops": (flood.ops - ops) / s}


def measure(bench, kind):
    server = relay(bench, "--handshake-timeout-secs", 2)
    loads = []
    try:
        loads.append(Load(bench, server, "--circuits", VICTIMS, "--rate", LOW, "--duration", 120))
        loads[0].until(lambda: loads[0].received > 1 << 24, "victims")
        loads.append(attack(bench, server, kind, "--ops", KINDS[kind], "--again-ms", 50,
                            "--burst-ms", BURST_MS))
        loads[1].until(lambda: loads[1].ops > 0, kind)
        time.sleep(.5)
        taken = {state: [] for state in STATES}
        for r in range(2 * bench.opt.rounds):
            for i in range(len(STATES)):
                state = STATES[(r + i) % len(STATES)]
                taken[state].append(window(server, state, *loads))
        told = loads[1].stop()
        loads[0].stop()  # exit status 0: every byte came as it was sent
    finally:
        for load in loads:
            load.kill()
        server.stop()
    return row_of(kind, taken, told)


def slopes(low, high, per_op):
    """CPU-seconds per further GiB, round by round, without what a different number of ops costs."""
    return [(h["cpu"] - l["cpu"] - per_op * (h["ops"] - l["ops"])) / (h["gib"] - l["gib"])
            for l, h in zip(low, high) if h["gib"] - l["gib"] > (HIGH - LOW) / 4 / (1 << 30)]


def rounds_of(taken):
    return len(taken["low"])


def row_of(kind, taken, told):
    """The flood's own cost is taken beside others, where it does not have to wake the relay: alone,
    an op costs several times as much, and so would too much be subtracted."""
    per_op = statistics.median((f["cpu"] - l["cpu"]) / f["ops"]
                               for l, f in zip(taken["low"], taken["flood low"]) if f["ops"])
    without = slopes(taken["low"], taken["high"], 0)
    beside = slopes(taken["flood low"], taken["flood high"], per_op)
    if min(len(without), len(beside)) < rounds_of(taken) / 2:
        raise Failed(f"{kind}: the generator had too little of its core to load the relay")
    # All of it together may not cost more than its parts do alone.
    sums = [(b["cpu"] - f["cpu"]) / b["gib"] for b, f in zip(taken["flood high"], taken["flood"])
            if b["gib"]]
    whole = [h["cpu"] / h["gib"] for h in taken["high"] if h["gib"]]

    def of(state, key):
        return statistics.median(w[key] for w in taken[state])
    return {"kind": kind, "without": spread(without), "beside": spread(beside),
            "ratio": statistics.median(beside) / statistics.median(without),
            "sum_ratio": statistics.median(sums) / statistics.median(whole),
            "us_per_op": 1e6 * per_op, "us_per_op_alone": 1e6 * of("flood", "cpu") / of("flood", "ops"),
            "ops_per_s": of("flood high", "ops"), "flood_share": of("flood", "cpu"),
            "mib_per_s": 1024 * of("high", "gib"), "mib_per_s_beside": 1024 * of("flood high", "gib"),
            "opened": told["opened"], "ended": told["ended"]}


def over(row):
    return max(row["ratio"], row["sum_ratio"]) >= BAR


def floods(bench):
    rows = []
    for kind in KINDS:
        if bench.opt.kinds and kind not in bench.opt.kinds:
            continue
        log(f"flood: {kind}")
        rows.append(measure(bench, kind))
        log(f"{kind}: {rows[-1]['ratio']:.2f} times" + (", over the bar" if over(rows[-1]) else ""))
    return rows


def burn(bench):
    rows = []
    for kind, ops in BURN:
        if bench.opt.kinds and kind not in bench.opt.kinds:
            continue
        log(f"burn: {kind} {ops or 'unbounded'}")
        server = relay(bench)
        foes = 2 if kind in ("window", "connect") else 1  # those need somebody to dial
        load = Load(bench, server, "--mode", "attack", "--attack", kind, "--slots", foes, "--net", 9,
                    "--duration", bench.opt.duration, "--ops", ops, "--again-ms", 0)
        try:
            told = load.finish()
        finally:
            load.kill()
            server.stop()
        rows.append({"kind": kind, "ops_asked": ops, "ops_per_s": told["ops_per_s"],
                     "opened_per_s": told["opened"] / told["seconds"],
                     "share": told["server_share"], "us_per_op": told["server_cpu_us_per_op"]})
    return rows


GROUPS = {"floods": floods, "burn": burn}


def text_of(res):
    g, m = res["groups"], res["machine"]
    parts = [f"# hostile\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, commit "
             f"{m['commit']}{' with changes' if m['changed'] else ''}, load at the start {m['load']}; "
             f"{VICTIMS} circuits at {LOW / 1e6:.0f} and {HIGH / 1e6:.0f} MB/s, {2 * res['rounds']} windows of "
             f"{WINDOW_S} s in each state."]
    if g.get("floods"):
        parts.append("## CPU-seconds per further GiB of others, without and beside a flood\n\n" +
                     report.table(
            ["flood", "without", "beside", f"times (bar {BAR})", "sum of parts", "ops/s",
             "µs per op", "alone", "flood's share of a core", "MiB/s without", "beside"],
            [[r["kind"], show(r["without"]), show(r["beside"]), f"{r['ratio']:.2f}",
              f"{r['sum_ratio']:.2f}", f"{r['ops_per_s']:.0f}", f"{r['us_per_op']:.2f}",
              f"{r['us_per_op_alone']:.2f}", f"{r['flood_share']:.2f}", f"{r['mib_per_s']:.0f}",
              f"{r['mib_per_s_beside']:.0f}"] for r in g["floods"]]))
    if g.get("burn"):
        parts.append("## What one hostile connection burns\n\n" + report.table(
            ["kind", "asked ops/s", "ops/s", "connections/s", "share of a core", "µs per op",
             "ms per connection"],
            [[r["kind"], r["ops_asked"] or "all it can", f"{r['ops_per_s']:.0f}",
              f"{r['opened_per_s']:.1f}", f"{r['share']:.3f}", f"{r['us_per_op']:.2f}",
              f"{1000 * r['share'] / r['opened_per_s']:.2f}" if r["opened_per_s"] > 5 else "–"]
             for r in g["burn"]]))
    return "\n\n".join(parts)


def run(opt):
    """--only takes floods and burn, and kinds of floods."""
    words = opt.only.split(",") if opt.only else []
    unknown = [w for w in words if w not in GROUPS and w not in KINDS]
    if unknown:
        print("groups: " + ", ".join([*GROUPS, *KINDS]), file=sys.stderr)
        return 0 if opt.only == "list" else 2
    opt.kinds = [w for w in words if w in KINDS]
    groups = [w for w in words if w in GROUPS] or list(GROUPS)
    try:
        bench = Bench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    try:
        res = {"machine": report.machine(pathlib.Path(__file__).resolve().parents[2]),
               "rounds": opt.rounds, "groups": {name: GROUPS[name](bench) for name in groups}}
    except Failed as e:
        print(e, file=sys.stderr)
        return 1
    finally:
        bench.close()
    report.write(opt.out, "hostile", res, text_of(res), {})
    print(json.dumps(res, indent=1) if opt.json else text_of(res))
    return 1 if any(over(r) for r in res["groups"].get("floods", [])) else 0
