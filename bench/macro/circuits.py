# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run circuits: what a relayed libp2p circuit costs. bench/README.md explains the method."""
import json
import os
import sys
import time

from macro import report
from macro.report import show, spread
from macro.servers import ROOT, Bench, Failed, Missing, log

RIVALS = ("rust", "go", "go-64k")


def alternate(bench, servers, args, pinned=True, rivals_rounds=None):
    """Every server in turn, as often as there are rounds, each round beginning with another one:
    {name: [result or None per round]}."""
    taken = {s.name: [] for s in servers}
    rounds = bench.opt.rounds
    rivals = min(rounds, rivals_rounds or bench.opt.rival_rounds or rounds)
    for r in range(rounds):
        for i in range(len(servers)):
            s = servers[(r + i) % len(servers)]
            if s.name in RIVALS and r >= rivals:
                continue
            taken[s.name].append(bench.load(s, args(s) if callable(args) else args, pinned))
    return taken


def column(results, key):
    return [key(r) if r else None for r in results]


def cpu_gib(r):
    return r["server_cpu_s_per_gib"]


def started(bench, names, **kw):
    servers = []
    try:
        for name in names:
            servers.append(bench.server(name, **kw))
    except Exception:
        for s in servers:
            s.stop()
        raise
    return servers


def stop(servers):
    for s in servers:
        s.stop()


# ---- groups of measurements: each returns its rows --------------------------------------------

def bulk_rows(bench, configs):
    rows = []
    for framing, circuits, names in configs:
        servers = started(bench, names)
        try:
            log(f"bulk {framing}, {circuits} circuits: {', '.join(names)}")
            taken = alternate(bench, servers, ["--framing", framing, "--circuits", circuits])
        finally:
            stop(servers)
        row = {"framing": framing, "circuits": circuits, "cpu_s_per_gib": {}, "mib_per_s": {},
               "generator_busy": {}, "server_busy": {}}
        for name, results in taken.items():
            row["cpu_s_per_gib"][name] = spread(column(results, cpu_gib))
            row["mib_per_s"][name] = spread(column(results, lambda r: r["mib_per_s"]))
            row["generator_busy"][name] = spread(
                column(results, lambda r: r["generator_cpu_s"] / r["seconds"]))
            row["server_busy"][name] = spread(column(
                results, lambda r: (r["server_cpu_s"] + r["softirq_cpu_s"]) / r["seconds"]))
        ratios = [cpu_gib(b) / cpu_gib(s) for s, b in zip(taken["sluice"], taken["bare"]) if s and b]
        row["share_of_bare"] = spread(ratios)
        rows.append(row)
    return rows


def bulk(bench):
    names = ("sluice", "bare", "rust", "go")
    return bulk_rows(bench, [(f, c, names) for c in (16, 256, 1) for f in ("16k", "1k")])


def framing(bench):
    return bulk_rows(bench, [(f, c, ("sluice", "bare", f)) for c in (16, 256) for f in ("rust", "go")])


def go_buffer(bench):
    """Would the go relay be a better rival with a larger copy buffer than the library's 2 KiB?"""
    return bulk_rows(bench, [("16k", 16, ("sluice", "bare", "go", "go-64k"))])


def shards(bench):
    """Two shards on the two cores, the generator wherever there is room: same shard or cross."""
    rows = []
    kinds = [("bulk", "16k", 16), ("bulk", "1k", 16), ("bulk", "16k", 1), ("bulk", "16k", 256),
             ("message", "16k", 1)]
    server = bench.server("sluice", shards=2, pinned=False)
    try:
        for mode, framing_name, circuits in kinds:
            log(f"shards: {mode} {framing_name}, {circuits} circuits")
            taken = {"same": [], "cross": []}
            for r in range(bench.opt.rounds):
                for place in (("same", "cross"), ("cross", "same"))[r % 2]:
                    taken[place].append(bench.load(server, [
                        "--mode", mode, "--framing", framing_name, "--circuits", circuits,
                        "--placement", place, *(["--sleep"] if mode == "message" else [])],
                        pinned=False))
            key = cpu_gib if mode == "bulk" else (lambda r: r["server_cpu_us_per_message"])
            row = {"mode": mode, "framing": framing_name, "circuits": circuits,
                   "cost": {p: spread(column(rs, key)) for p, rs in taken.items()}}
            row["ratio"] = spread([key(c) / key(s) for s, c in zip(taken["same"], taken["cross"])
                                   if s and c])
            rows.append(row)
    finally:
        server.stop()
    return rows


def rates(bench):
    rows = []
    for mode in ("handshake", "setup", "churn"):
        servers = started(bench, ("sluice", "rust", "go"))
        try:
            log(f"{mode}s per second")
            taken = alternate(bench, servers, ["--mode", mode])
        finally:
            stop(servers)
        rows.append({
            "mode": mode,
            "per_s": {n: spread(column(rs, lambda r: r["lives_per_s"])) for n, rs in taken.items()},
            "per_core_s": {n: spread(column(rs, lambda r: r["lives_per_server_cpu_s"]))
                           for n, rs in taken.items()},
            "p50_us": {n: spread(column(rs, lambda r: r["latency_us"]["p50"]))
                       for n, rs in taken.items()}})
    return rows


def latency(bench):
    """256 bytes every 200 µs through one circuit; what is added to the null relay's time."""
    servers = started(bench, ("sluice", "null", "bare", "rust", "go"))
    try:
        log("latency")
        taken = alternate(bench, servers, ["--mode", "message", "--circuits", 1])
    finally:
        stop(servers)
    rows = []
    for name, results in taken.items():
        row = {"name": name}
        for q in ("p50", "p90", "p99"):
            row[q] = spread(column(results, lambda r, q=q: r["latency_us"][q]))
            row["added_" + q] = spread([a["latency_us"][q] - b["latency_us"][q]
                                        for a, b in zip(results, taken["null"]) if a and b])
        row["cpu_us"] = spread(column(results, lambda r: r["server_cpu_us_per_message"]))
        rows.append(row)
    return rows


def memory(bench):
    steps = (100, 500) if bench.opt.quick else (1000, 10000, 18000)
    rows = []
    for name in ("sluice", "rust", "go"):
        server = bench.server(name, **({"shards": 2} if name == "sluice" else {}))
        try:
            log(f"memory: {name}")
            r = bench.load(server, ["--mode", "idle", "--steps", ",".join(map(str, steps)),
                                    "--settle", 3, "--duration", 5])
        finally:
            server.stop()
        if not r:
            continue
        at = {m["peers"]: m for m in r["memory"]}
        span = steps[-1] - steps[0]
        rows.append({"name": name, "memory": r["memory"],
                     "kib_per_peer": (at[steps[-1]]["rss_kib"] - at[steps[0]]["rss_kib"]) / span,
                     "idle_cpu": r["server_cpu_s"] / r["seconds"]})
    return rows


def idle_daemon(bench):
    """Default limits, two shards, nobody there."""
    rows = []
    server = bench.server("sluice", shards=2, pinned=False, lifted=False)
    try:
        r = bench.load(server, ["--mode", "idle", "--steps", "1", "--duration", 10])
        if r:
            rows.append({"rss_kib": r["memory"][-1]["rss_kib"],
                         "cpu_percent": 100 * r["server_cpu_s"] / r["seconds"]})
    finally:
        server.stop()
    return rows


def crowd(bench):
    """16 busy circuits among so many that send 256 bytes every ten seconds."""
    counts = (0, 200) if bench.opt.quick else (0, 1000, 10000)
    server = bench.server("sluice")
    taken = {n: [] for n in counts}
    try:
        log("circuits that idle")
        for _ in range(bench.opt.rounds):
            for n in counts:
                taken[n].append(bench.load(server, ["--circuits", 16, "--idle-circuits", n]))
    finally:
        server.stop()
    return [{"idle": n, "cpu_s_per_gib": spread(column(rs, cpu_gib)),
             "ratio": spread([cpu_gib(a) / cpu_gib(b) for a, b in zip(rs, taken[0]) if a and b])}
            for n, rs in taken.items()]


BOUNDS = {"10us_total": 10, "25us_total": 25, "50us_total": 50, "100us_total": 100,
          "250us_total": 250, "1ms_total": 1000, "more_total": None}


def sojourn(bench):
    """Turns that sent something, by the time from seeing completions to issuing sends, at half of
    the load that would take a whole core."""
    rows = []
    server = bench.server("sluice", metrics=True)
    try:
        for framing_name, circuits in (("1k", 16), ("1k", 256), ("16k", 16), ("16k", 256)):
            log(f"sojourn {framing_name}, {circuits} circuits")
            args = ["--framing", framing_name, "--circuits", circuits]
            full = bench.load(server, args)
            if not full:
                continue
            rate = int(0.5 * 2 ** 30 / cpu_gib(full))
            within, busy, turns = [], [], dict.fromkeys(BOUNDS, 0)
            for _ in range(bench.opt.rounds):
                before = server.counters("sluice_sojourn_")
                r = bench.load(server, [*args, "--rate", rate, "--even"])
                after = server.counters("sluice_sojourn_")
                if not r:
                    continue
                new = {b: after[b] - before[b] for b in BOUNDS}
                for b in BOUNDS:
                    turns[b] += new[b]
                within.append(sum(new[b] for b in list(BOUNDS)[:3]) / sum(new.values()))
                busy.append(r["server_cpu_s"] / r["seconds"])
            seen, p99 = 0, None
            for b, bound in BOUNDS.items():
                seen += turns[b]
                if seen >= 0.99 * sum(turns.values()):
                    p99 = bound
                    break
            rows.append({"framing": framing_name, "circuits": circuits, "rate": rate,
                         "busy": spread(busy), "within_50us": spread(within), "p99_us_at_most": p99,
                         "turns": turns})
    finally:
        server.stop()
    return rows


GROUPS = {"bulk": bulk, "shards": shards, "rates": rates, "latency": latency, "memory": memory,
          "framing": framing, "crowd": crowd, "idle": idle_daemon, "go-buffer": go_buffer,
          "sojourn": sojourn}


# ---- the report --------------------------------------------------------------------------------

def bulk_text(title, rows):
    names = list(dict.fromkeys(n for r in rows for n in r["cpu_s_per_gib"]))
    head = ["bodies", "circuits", *names, "us / limit", "best rival / us", "us MiB/s", "generator"]
    lines = []
    for r in rows:
        cost = r["cpu_s_per_gib"]
        rival = min((cost[n]["median"] for n in RIVALS if cost.get(n)), default=None)
        ours = cost["sluice"]["median"] if cost["sluice"] else None
        share = r["share_of_bare"]
        lines.append([r["framing"], r["circuits"], *(show(cost.get(n)) for n in names),
                      f"{100 * share['median']:.0f} % of it" if share else "–",
                      f"{rival / ours:.1f} x" if rival and ours else "–",
                      show(r["mib_per_s"]["sluice"], 0), show(r["generator_busy"]["sluice"], 2)])
    return f"## {title}\n\n" + report.table(head, lines)


def text_of(res):
    g, parts = res["groups"], []
    m = res["machine"]
    parts.append(f"# circuits\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, "
                 f"commit {m['commit']}{' with changes' if m['changed'] else ''}, load at the start "
                 f"{m['load']}; {res['rounds']} rounds of {res['duration_s']} s; median [quartiles].")
    for name, title in (("bulk", "CPU-seconds per GiB"), ("framing", "CPU-seconds per GiB, as rust and "
                        "go cut their bytes"), ("go-buffer", "CPU-seconds per GiB, go's copy buffer")):
        if g.get(name):
            parts.append(bulk_text(title, g[name]))
    if g.get("shards"):
        parts.append("## Same shard and cross-shard (CPU-s per GiB; messages: µs of CPU each)\n\n" +
                     report.table(["mode", "bodies", "circuits", "same", "cross", "cross / same"],
                                  [[r["mode"], r["framing"], r["circuits"], show(r["cost"]["same"]),
                                    show(r["cost"]["cross"]), show(r["ratio"], 2)]
                                   for r in g["shards"]]))
    if g.get("rates"):
        rows = [[r["mode"], n, show(r["per_s"][n], 0), show(r["per_core_s"][n], 0),
                 show(r["p50_us"][n], 0)] for r in g["rates"] for n in r["per_s"]]
        parts.append("## Handshakes with reservation, circuits, whole lives\n\n" + report.table(
            ["mode", "relay", "per second", "per CPU-second of the relay", "p50 µs"], rows))
    if g.get("latency"):
        rows = [[r["name"], show(r["p50"], 1), show(r["p90"], 1), show(r["p99"], 0),
                 show(r["added_p50"], 1), show(r["added_p90"], 1), show(r["cpu_us"], 1)]
                for r in g["latency"]]
        parts.append("## Latency of 256 bytes every 200 µs, µs\n\n" + report.table(
            ["relay", "p50", "p90", "p99", "added p50", "added p90", "CPU each"], rows))
    if g.get("memory"):
        rows = [[r["name"], *(f"{m['peers']}: {m['rss_kib']}" for m in r["memory"]),
                 f"{r['kib_per_peer']:.2f}", f"{100 * r['idle_cpu']:.2f} %"] for r in g["memory"]]
        wide = max(len(r) for r in rows)
        parts.append("## Memory of reserved idle peers, KiB resident\n\n" + report.table(
            ["relay", *(["peers: KiB"] * (wide - 3)), "KiB per peer", "CPU"], rows))
    if g.get("idle"):
        r = g["idle"][0]
        parts.append(f"## Idle, two shards\n\n{r['rss_kib'] / 1024:.1f} MiB resident, "
                     f"{r['cpu_percent']:.3f} % of a core.")
    if g.get("crowd"):
        parts.append("## 16 busy circuits among many idle ones\n\n" + report.table(
            ["idle", "CPU-s per GiB", "to none"],
            [[r["idle"], show(r["cpu_s_per_gib"]), show(r["ratio"], 2)] for r in g["crowd"]]))
    if g.get("sojourn"):
        parts.append("## Sojourn (completion seen to send issued) at half load\n\n" + report.table(
            ["bodies", "circuits", "core busy", "turns within 50 µs, %", "p99 at most, µs"],
            [[r["framing"], r["circuits"], show(r["busy"], 2),
              show({k: 100 * v for k, v in r["within_50us"].items()} if r["within_50us"] else None, 2),
              r["p99_us_at_most"] or "more than 1000"] for r in g["sojourn"]]))
    if res["failures"]:
        parts.append("## Failures\n\n" + "\n".join("- " + f for f in res["failures"]))
    return "\n\n".join(parts)


def pictures_of(res):
    g, out = res["groups"], {}
    for name in ("bulk", "framing"):
        if g.get(name):
            rows = sorted(g[name], key=lambda r: (r["framing"], r["circuits"]))
            out[name] = report.bars("CPU-seconds of the relay per GiB", "s", [
                (f"{r['framing']} x {r['circuits']}", list(r["cpu_s_per_gib"].items()))
                for r in rows])
    if g.get("shards"):
        out["shards"] = report.bars("Same shard and cross-shard", "CPU-s per GiB", [
            (f"{r['framing']} x {r['circuits']}", list(r["cost"].items()))
            for r in g["shards"] if r["mode"] == "bulk"])
    return out


def earlier(path, only):
    """Groups that this run does not take keep their last results."""
    try:
        return json.loads(path.read_text())["groups"] if only else {}
    except (OSError, ValueError, KeyError):
        return {}


def run(opt):
    only = opt.only.split(",") if opt.only else list(GROUPS)
    if opt.only == "list" or any(o not in GROUPS for o in only):
        print("groups: " + ", ".join(GROUPS), file=sys.stderr)
        return 2
    began = time.time()
    try:
        bench = Bench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    res = {"name": "circuits", "machine": report.machine(ROOT), "duration_s": opt.duration,
           "rounds": opt.rounds, "pinning": {"server": sorted(bench.server_core),
                                             "generator": sorted(bench.load_core)},
           "groups": earlier(opt.out / "circuits.json", opt.only), "failures": bench.failures}
    code = 0
    try:
        for name in only:
            res["groups"][name] = GROUPS[name](bench)
            report.write(opt.out, "circuits", res, text_of(res), pictures_of(res))
    except Missing as e:
        print(e, file=sys.stderr)
        code = 77
    except Failed as e:
        bench.failures.append(str(e))
    finally:
        bench.close()
    print(json.dumps(res) if opt.json else text_of(res))
    log(f"{time.time() - began:.0f} s; results in {os.path.relpath(opt.out)}/circuits.*")
    return 1 if bench.failures else code
