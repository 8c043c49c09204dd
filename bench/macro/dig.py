# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run dig: what a relayed JSON message costs, and those who wait for one. bench/README.md explains
the method."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from macro import report
from macro.loop import Loop
from macro.report import show, spread
from macro.servers import ROOT, Bench, Failed, Missing, Server, free_port, log

BARE = ("bare", "null")
SIZE = 1024
# Where time is measured: share of a run that may be spent waiting for a core; tries; how long each.
CALM, CALM_TRIES, CALM_S = 0.05, 12, 0.3
SHAPES = (("saturated", 64, 8), ("unpipelined", 64, 1), ("one pair", 2, 1))
# The original's flags (dig.md §16) that take its limits away.
LIFTED = ["--max-connections", "20000", "--max-connections-per-ip", "0",
          "--registrations-per-ip-per-sec", "0", "--max-registrations-per-ip", "0",
          "--messages-per-conn-per-sec", "0", "--bytes-per-conn-per-sec", "0",
          "--max-relayed-bytes-per-conn", "0", "--ban-threshold", "0"]
BOUNDS = {"10us_total": 10, "25us_total": 25, "50us_total": 50, "100us_total": 100,
          "250us_total": 250, "1ms_total": 1000, "more_total": None}


class Peer(Server):
    """Another relay of the wire, which need not say that it is ready: it is asked."""

    def _wait(self):
        for _ in range(200):
            table = pathlib.Path(f"/proc/{self.process.pid}/net/tcp").read_text()
            if f":{self.port:04X} 00000000:0000 0A" in table:
                time.sleep(0.2)
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise Failed(f"{self.name} did not start: {self.log.read()[-400:]}")


class DigBench(Bench):
    def __init__(self, opt):
        super().__init__(opt)
        self.seed, self.loop = 0, None
        # Its name counts: it may be a link that says what to be.
        self.peer = pathlib.Path(opt.peer).absolute() if opt.peer else None
        if self.peer and not os.access(self.peer, os.X_OK):
            raise Missing(f"--peer {opt.peer}: no program there")
        try:
            self.loop = Loop()
        except (OSError, subprocess.CalledProcessError) as e:
            log(f"over the host's congestion control, for want of a namespace (root?): {e}")
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-bench-dig-"))

    def close(self):
        if self.loop:
            self.loop.close()
        shutil.rmtree(self.home, ignore_errors=True)
        super().close()

    def names(self, *names):
        return [*names, *(["peer"] if self.peer else [])]

    def certificate(self):
        at = self.home / "cert.pem", self.home / "key.pem"
        if not at[0].exists():
            done = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                   "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench", "-days", "2",
                                   "-keyout", at[1], "-out", at[0]], capture_output=True)
            if done.returncode:
                raise Missing("a certificate: openssl")
        return at

    def dig(self, name, tls=False):
        enter = self.loop.enter() if self.loop else []
        if name in BARE:
            return Server(name, [*enter, self.bin / "bench-dig", name, "127.0.0.1", "@PORT@"],
                          self.server_core, relay=name)
        if name == "peer":
            return Peer(name, [*enter, self.peer, "--listen", "127.0.0.1:@PORT@", "--health-listen",
                               f"127.0.0.1:{free_port()}", "--stun-listen", f"127.0.0.1:{free_port()}",
                               "--dashboard-listen", f"127.0.0.1:{free_port()}", *LIFTED],
                        self.server_core, relay="dig")
        data, http = tempfile.mkdtemp(prefix="sluice-bench-data-"), free_port()
        command = [*enter, self.bin / "sluice", "--data", data, "--listen-p2p", "off", "--listen-turn",
                   "off", "--listen-dig", "127.0.0.1:@PORT@", "--listen-http", f"127.0.0.1:{http}",
                   "--shards", 1, "--log-level", "warn", "--dig-messages-per-conn", "0"]
        if tls:
            cert, key = self.certificate()
            command += ["--dig-tls-cert", cert, "--dig-tls-key", key]
        return Server(name, command, self.server_core, relay="dig", data=data, http=http)

    def counters(self, server, prefix):
        """Server.counters, from inside the namespace."""
        if not self.loop or not self.loop.space:
            return server.counters(prefix)
        ask = ("import sys, urllib.request as u; "
               f"sys.stdout.write(u.urlopen('http://127.0.0.1:{server.http}/metrics', timeout=5)"
               ".read().decode())")
        text = subprocess.check_output([*self.loop.enter(), sys.executable, "-c", ask], text=True)
        return {w[0][len(prefix):]: float(w[1]) for w in map(str.split, text.splitlines())
                if w and w[0].startswith(prefix)}

    def dig_load(self, server, args):
        """One run of the generator: its JSON, or None."""
        self.seed += 1  # other ids and bytes each time: who has just left is nobody's incumbent
        command = [*(self.loop.enter() if self.loop else []), self.bin / "load-dig", "--to",
                   f"127.0.0.1:{server.port}", "--json", "--quiet", "--server-pid", server.process.pid,
                   "--seed", self.seed, *args]
        if server.relay == "null":
            command += ["--null"]
        if "--duration" not in args:
            command += ["--duration", self.opt.duration]
        try:
            done = subprocess.run([str(w) for w in command], capture_output=True, text=True,
                                  timeout=300,
                                  preexec_fn=lambda: os.sched_setaffinity(0, self.load_core))
            result = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            result, done = {"ok": False}, None
        except ValueError:
            result = {"ok": False}
        if not result["ok"]:
            why = done.stderr.strip()[-300:] if done else "no end in 300 s"
            told = {k: result[k] for k in ("lost", "gaps", "mismatches", "doubles", "errors", "failed")
                    if k in result}
            self.failures.append(f"{server.name} {' '.join(map(str, args))}: {why} {told or ''}")
            log("FAILED " + self.failures[-1])
            return None
        return result


def all_of(bench, names):
    servers = []
    try:
        for name in names:
            servers.append(bench.dig(name))
    except Exception:
        stop(servers)
        raise
    return servers


def stop(servers):
    for s in servers:
        s.stop()


def was_calm(r):
    return max(r["server_waited_s"], r["generator_waited_s"]) < CALM * r["seconds"]


def calm(bench, server, args):
    """A run in which neither the server nor the generator waited for its core; or None: neighbours would
    be what is measured."""
    for _ in range(CALM_TRIES):
        r = bench.dig_load(server, [*args, "--duration", CALM_S])
        if not r or was_calm(r):
            return r
    log(f"no calm run: {server.name} waited {r['server_waited_s']:.2f} s, the generator "
        f"{r['generator_waited_s']:.2f} s of {r['seconds']:.2f}")
    return None


def alternate(bench, servers, args, load=None):
    taken = {s.name: [] for s in servers}
    for r in range(bench.opt.rounds):
        for i in range(len(servers)):
            s = servers[(r + i) % len(servers)]
            if s.name == "peer" and r >= (bench.opt.rival_rounds or bench.opt.rounds):
                continue
            taken[s.name].append(load(bench, s, args) if load else bench.dig_load(s, args))
    return taken


def ratio(a, b, key):
    """Of results of the same round."""
    return spread([key(x) / key(y) for x, y in zip(a, b) if x and y and key(y)])


def column(results, key):
    return spread([key(r) for r in results if r])


def cpu_s(r):
    return r["server_cpu_s"] + r["softirq_cpu_s"]


def us(r):
    return r["cpu_us_per_message"]


# ---- groups ------------------------------------------------------------------------------------

def relay(bench):
    servers, rows = all_of(bench, bench.names("sluice", "bare")), []
    try:
        for shape, connections, window in SHAPES:
            log(f"relay_message, {shape}: {connections} connections, {window} under way each")
            taken = alternate(bench, servers, ["--connections", connections, "--window", window,
                                               "--size", SIZE])
            rows.append({
                "shape": shape, "connections": connections, "window": window,
                "cpu_us": {n: column(rs, us) for n, rs in taken.items()},
                "per_s": {n: column(rs, lambda r: r["messages_per_s"]) for n, rs in taken.items()},
                "server_busy": {n: column(rs, lambda r: cpu_s(r) / r["seconds"])
                                for n, rs in taken.items()},
                "generator_busy": {n: column(rs, lambda r: r["generator_cpu_s"] / r["seconds"])
                                   for n, rs in taken.items()},
                "to_us": {n: ratio(rs, taken["sluice"], us) for n, rs in taken.items()
                          if n != "sluice"}})
    finally:
        stop(servers)
    return rows


def half_load(bench, server):
    """Messages per second that take half of the server's core, where the generator can send them."""
    full = bench.dig_load(server, ["--duration", max(1, bench.opt.duration)])
    rate = int(min(0.5e6 / us(full), 0.7 * full["messages_per_s"])) if full else 0
    for _ in range(4 if rate else 0):  # by a rate they come one by one, and cost more than at saturation
        r = bench.dig_load(server, ["--rate", rate, "--duration", CALM_S])
        if r:
            rate = int(min(rate, rate * 0.5 * r["seconds"] / cpu_s(r)))
    return rate


def latency(bench):
    servers, rows = all_of(bench, bench.names("sluice", "null")), []
    try:
        half = half_load(bench, servers[0])
        for what, connections, rate in (("one pair", 2, 2000), ("half load", 64, half)):
            if not rate:
                continue
            log(f"latency, {what}: {rate} messages per second")
            taken = alternate(bench, servers, ["--connections", connections, "--rate", rate],
                              calm)
            at = {q: {n: column(rs, lambda r: r["latency_us"][q]) for n, rs in taken.items()}
                  for q in ("p50", "p90", "p99")}
            added = {q: {n: spread([x["latency_us"][q] - y["latency_us"][q]
                                    for x, y in zip(taken[n], taken["null"]) if x and y])
                         for n in taken if n != "null"} for q in ("p50", "p90")}
            rows.append({"what": what, "rate": rate, "us": at, "added_us": added,
                         "busy": column(taken["sluice"], lambda r: cpu_s(r) / r["seconds"])})
    finally:
        stop(servers)
    return rows


def sojourn(bench):
    """Turns that sent something, by the time from seeing completions to issuing sends, at half of the
    load that would take a whole core."""
    server, rows = bench.dig("sluice"), []
    try:
        rate = half_load(bench, server)
        log(f"sojourn at {rate} messages per second")
        within, busy, turns = [], [], dict.fromkeys(BOUNDS, 0)
        for _ in range(CALM_TRIES * bench.opt.rounds if rate else 0):
            if len(within) == bench.opt.rounds:
                break
            before = bench.counters(server, "sluice_sojourn_")
            r = bench.dig_load(server, ["--rate", rate, "--duration", CALM_S])
            after = bench.counters(server, "sluice_sojourn_")
            new = {b: after[b] - before[b] for b in BOUNDS}
            if not r or not was_calm(r) or not sum(new.values()):
                continue
            for b in BOUNDS:
                turns[b] += new[b]
            within.append(sum(new[b] for b in list(BOUNDS)[:3]) / sum(new.values()))
            busy.append(r["server_cpu_s"] / r["seconds"])
        seen, p99 = 0, None
        for b, bound in BOUNDS.items():
            seen += turns[b]
            if within and seen >= 0.99 * sum(turns.values()):
                p99 = bound
                break
        rows.append({"rate": rate, "busy": spread(busy), "within_50us": spread(within),
                     "p99_us_at_most": p99, "turns": turns})
    finally:
        server.stop()
    return rows


def memory(bench):
    steps = (500, 2000) if bench.opt.quick else (2000, 8000)
    rows = []
    for name, tls in [("sluice", False), ("sluice", True), *(("peer", False),) * bool(bench.peer)]:
        log(f"memory: {name}{' over TLS' if tls else ''}")
        server = bench.dig(name, tls)
        try:
            r = bench.dig_load(server, ["--mode", "idle", "--steps", ",".join(map(str, steps)),
                                        "--settle", 2, "--duration", 3, "--sleep",
                                        *(["--tls"] if tls else [])])
        finally:
            server.stop()
        if r:
            rows.append({"name": name, "tls": tls, "memory": r["memory"],
                         "kib": r["kib_per_connection"], "idle_cpu": cpu_s(r) / r["seconds"]})
    return rows


def afresh(bench, args):
    """A server of its own for every run."""
    names = bench.names("sluice")
    taken = {n: [] for n in names}
    for r in range(bench.opt.rounds):
        for i in range(len(names)):
            server = bench.dig(names[(r + i) % len(names)])
            try:
                taken[server.name].append(bench.dig_load(server, args))
            finally:
                server.stop()
    return taken


def joins(bench):
    log("1000 arrivals within a second")
    taken = afresh(bench, ["--mode", "join", "--connections", 1000])
    return [{"connections": 1000,
             "cpu_s": {n: column(rs, cpu_s) for n, rs in taken.items()},
             "all_s": {n: column(rs, lambda r: r["join_s"]) for n, rs in taken.items()},
             "heard_s": {n: column(rs, lambda r: r["spread_s"]) for n, rs in taken.items()},
             "to_us": {n: ratio(rs, taken["sluice"], cpu_s) for n, rs in taken.items()
                       if n != "sluice"}}]


def peers(bench):
    rows = []
    for members, window in ((100, 1), (1000, 1), (1000, 4)):
        log(f"get_peers at {members}, {window} under way")
        taken = afresh(bench, ["--mode", "peers", "--connections", members, "--window", window])
        rows.append({"members": members, "window": window,
                     "cpu_us": {n: column(rs, us) for n, rs in taken.items()},
                     "user_us": {n: column(rs, lambda r: r["user_us_per_message"])
                                 for n, rs in taken.items()},
                     "per_s": {n: column(rs, lambda r: r["messages_per_s"]) for n, rs in taken.items()},
                     "to_us": {n: ratio(rs, taken["sluice"], us) for n, rs in taken.items()
                               if n != "sluice"}})
    return rows


def broadcast(bench):
    """One frame for 63 others."""
    servers = all_of(bench, bench.names("sluice"))
    try:
        log("broadcast to 63 others")
        taken = alternate(bench, servers, ["--mode", "broadcast"])
    finally:
        stop(servers)
    return [{"members": 64, "cpu_us": {n: column(rs, us) for n, rs in taken.items()},
             "to_us": {n: ratio(rs, taken["sluice"], us) for n, rs in taken.items() if n != "sluice"}}]


GROUPS = {"relay": relay, "latency": latency, "sojourn": sojourn, "memory": memory, "joins": joins,
          "peers": peers, "broadcast": broadcast}


# ---- the report --------------------------------------------------------------------------------

MET = {True: "met", False: "**missed**", None: "no calm run"}


def bars_of(g):
    """(what, wanted, measured, met) for each line under Reach of which there are figures."""
    out = []

    def most(what, bound, value, unit):
        out.append((what, f"<= {bound} {unit}", "not measured" if value is None else f"{value:.2f}",
                    None if value is None else value <= bound))

    def middle(s):
        return s["median"] if s else None

    for r in g.get("relay", []):
        most(f"CPU per message of 1 KiB, {r['shape']} ({r['connections']} x {r['window']})",
             5 if r["window"] > 1 else 25, middle(r["cpu_us"]["sluice"]), "µs")
        if r["to_us"].get("peer"):
            value = r["to_us"]["peer"]["median"]
            out.append((f"the other relay's ÷ ours, {r['shape']}", ">= 8", f"{value:.1f}", value >= 8))
    for r in g.get("memory", []):
        if r["name"] == "sluice":
            most(f"KiB per idle registered connection{', TLS' if r['tls'] else ''}",
                 24 if r["tls"] else 3, r["kib"], "KiB")
    for r in g.get("joins", []):
        most("CPU for 1000 joins within one second", 0.3, middle(r["cpu_s"]["sluice"]), "s")
    for r in g.get("peers", []):
        if r["members"] == 1000 and r["window"] == 1:
            most("get_peers at 1000, user time", 20, middle(r["user_us"]["sluice"]), "µs")
            most("get_peers at 1000, in all", 100, middle(r["cpu_us"]["sluice"]), "µs")
    for r in g.get("latency", []):
        most(f"added latency over the null relay, p90, {r['what']}", 200,
             middle(r["added_us"]["p90"]["sluice"]), "µs")
    for r in g.get("sojourn", []):
        most("sojourn p99 at half load, at most", 50,
             (r["p99_us_at_most"] or 1e6) if r["within_50us"] else None, "µs")
    return out


def cost_table(first, rows, cells, key, digits):
    names = list(dict.fromkeys(n for r in rows for n in r[key]))
    others = [n for n in names if n != "sluice"]
    return report.table([*first, *names, *(f"{n} / us" for n in others)],
                        [[*cells(r), *(show(r[key].get(n), digits) for n in names),
                          *(show(r["to_us"].get(n), 2) for n in others)] for r in rows])


def relay_text(rows):
    names = list(dict.fromkeys(n for r in rows for n in r["per_s"]))
    return ["## relay_message, 1 KiB payload: CPU, µs each\n\n" + cost_table(
        ["", "connections", "under way"], rows, lambda r: [r["shape"], r["connections"], r["window"]],
        "cpu_us", 2),
        "## The same: messages per second, and who was busy\n\n" + report.table(
            ["", "server", "per second", "its core", "generator's"],
            [[r["shape"], n, show(r["per_s"][n], 0), show(r["server_busy"][n], 2),
              show(r["generator_busy"][n], 2)] for r in rows for n in names])]


def text_of(res):
    g, m = res["groups"], res["machine"]
    parts = [f"# dig\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, commit "
             f"{m['commit']}{' with changes' if m['changed'] else ''}, load at the start {m['load']}; "
             f"{res['rounds']} rounds of {res['duration_s']} s, {res['congestion']}; median [quartiles]."]
    reach = bars_of(g)
    if reach:
        parts.append("## Reach\n\n" + report.table(
            ["", "wanted", "measured", ""], [[*r[:3], MET[r[3]]] for r in reach]))
    if g.get("relay"):
        parts += relay_text(g["relay"])
    if g.get("latency"):
        parts.append("## Latency, µs\n\n" + report.table(
            ["", "per second", "server", "p50", "p90", "p99", "p50 over null", "p90 over null"],
            [[r["what"], r["rate"], n, *(show(r["us"][q][n], 1) for q in ("p50", "p90", "p99")),
              *(show(r["added_us"][q].get(n), 1) for q in ("p50", "p90"))]
             for r in g["latency"] for n in r["us"]["p50"]]))
    if g.get("sojourn"):
        parts.append("## Sojourn (completion seen to send issued) at half load\n\n" + report.table(
            ["per second", "core busy", "turns within 50 µs, %", "p99 at most, µs"],
            [[r["rate"], show(r["busy"], 2),
              show({k: v if k == "n" else 100 * v for k, v in r["within_50us"].items()}
                   if r["within_50us"] else None, 2),
              (r["p99_us_at_most"] or "more than 1000") if r["within_50us"] else "–"]
             for r in g["sojourn"]]))
    if g.get("memory"):
        parts.append("## Memory of idle registered connections, KiB resident\n\n" + report.table(
            ["server", "connections: KiB", "KiB each", "CPU"],
            [[r["name"] + (" TLS" if r["tls"] else ""),
              ", ".join(f"{x['connections']}: {x['rss_kib']}" for x in r["memory"]), f"{r['kib']:.2f}",
              f"{100 * r['idle_cpu']:.2f} %"] for r in g["memory"]]))
    if g.get("joins"):
        parts.append("## 1000 arrivals within a second: CPU, s\n\n" + cost_table(
            ["all registered after, s", "all heard of after, s"], g["joins"],
            lambda r: [show(r["all_s"]["sluice"], 2), show(r["heard_s"]["sluice"], 2)], "cpu_s", 3))
    if g.get("peers"):
        parts.append("## get_peers: CPU, µs each\n\n" + cost_table(
            ["members", "under way", "us: user time"], g["peers"],
            lambda r: [r["members"], r["window"], show(r["user_us"]["sluice"], 1)], "cpu_us", 1))
    if g.get("broadcast"):
        parts.append("## broadcast, 1 KiB payload to 63 others: CPU, µs each\n\n" + cost_table(
            ["members"], g["broadcast"], lambda r: [r["members"]], "cpu_us", 0))
    if res["failures"]:
        parts.append("## Failures\n\n" + "\n".join("- " + f for f in res["failures"]))
    return "\n\n".join(parts)


def pictures_of(res):
    g, out = res["groups"], {}
    if g.get("relay"):
        out["relay"] = report.bars("CPU per relayed message of 1 KiB", "µs", [
            (r["shape"], list(r["cpu_us"].items())) for r in g["relay"]])
    if g.get("latency"):
        out["latency"] = report.bars("Latency, p90", "µs", [
            (r["what"], list(r["us"]["p90"].items())) for r in g["latency"]])
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
        return 0 if opt.only == "list" else 2
    began = time.time()
    try:
        bench = DigBench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    res = {"name": "dig", "machine": report.machine(ROOT), "duration_s": opt.duration,
           "rounds": opt.rounds, "pinning": {"server": sorted(bench.server_core),
                                             "generator": sorted(bench.load_core)},
           "congestion": "cubic" if bench.loop else "the host's congestion control",
           "groups": earlier(opt.out / "dig.json", opt.only), "failures": bench.failures}
    code = 0
    try:
        for name in only:
            try:
                res["groups"][name] = GROUPS[name](bench)
            except Missing as e:  # the others can do without
                print(e, file=sys.stderr)
                code = 77
            report.write(opt.out, "dig", res, text_of(res), pictures_of(res))
    except Failed as e:
        bench.failures.append(str(e))
    finally:
        bench.close()
    report.write(opt.out, "dig", res, text_of(res), pictures_of(res))
    print(json.dumps(res) if opt.json else text_of(res))
    log(f"{time.time() - began:.0f} s; results in {os.path.relpath(opt.out)}/dig.*")
    return 1 if bench.failures else code
