# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run turn: what a relayed datagram costs. bench/README.md explains the method."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from macro import report
from macro.loop import Loop
from macro.report import show, spread
from macro.servers import ROOT, Bench, Failed, Missing, Server, free_port, log
from macro.veth import Veth

SIZES = (120, 1200)
TRAINS = (1, 4, 16, 64)
MOST = {120: 64, 1200: 54}  # one UDP_SEGMENT send carries 64 KiB
BARE = ("recv/send", "gro-gso", "splice")
RIVALS = ("coturn", "coturn-new", "coturn-best")
BEST = ("--multiplex-peer", "--udp-gso")  # of coturn 4.17, by its own help
SECRET = "bench"
FLOOD_TRIES = 8
SOURCES = ",".join(f"127.0.1.{n}" for n in range(1, 41))


def coturn_home():
    """Debian's, installed or unpacked: (turnserver, environment)."""
    host = shutil.which("turnserver")
    if host:
        return host, None
    usr = ROOT / ".deps" / "root" / "usr"
    if not (usr / "bin" / "turnserver").exists():
        raise Missing("coturn: tools/deps --test")
    return usr / "bin" / "turnserver", libraries(usr)


def libraries(usr):
    found = [str(p) for top in (usr, usr.parent) for p in top.glob("lib/*-linux-gnu*")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(found)}


class Coturn(Server):
    """Says nothing on stdout when it is ready, so it is asked."""

    def __init__(self, name, program, env, cores, address="127.0.0.1", enter=(), flags=()):
        self.address, self.enter = address, list(enter)
        home = tempfile.mkdtemp(prefix="sluice-bench-coturn-")
        command = [*enter, program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--use-auth-secret",
                   f"--static-auth-secret={SECRET}", "--realm=bench", "-L", address,
                   "-E", address, "-p", "@PORT@", "--allow-loopback-peers", "--relay-threads=1",
                   "--min-port=10000", "--max-port=65535", f"--userdb={home}/db",
                   f"--pidfile={home}/pid", "--log-file=stdout", "--simple-log", *flags]
        if env:
            command = [*enter, "env", f"LD_LIBRARY_PATH={env['LD_LIBRARY_PATH']}",
                       *command[len(enter):]]
        super().__init__(name, command, cores, relay="turn", data=home)

    def _wait(self):
        # Bound, in this namespace or another: the kernel lists it. 4.17 goes through its ports first.
        for _ in range(800):
            table = pathlib.Path(f"/proc/{self.process.pid}/net/udp").read_text()
            if f":{self.port:04X} " in table:
                time.sleep(0.2)
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise Failed(f"{self.name} did not start: {self.log.read()[-400:]}")


class TurnBench(Bench):
    def __init__(self, opt):
        super().__init__(opt)
        self.veth = self.loop = None
        self.coturn = {"coturn": coturn_home()}
        if opt.coturn:
            usr = pathlib.Path(opt.coturn).resolve()
            usr = usr.parent if usr.is_file() else usr
            program = next((p for p in (usr / "turnserver", usr / "bin/turnserver") if p.exists()),
                           None)
            if not program:
                raise Missing(f"--coturn {opt.coturn}: no turnserver there")
            self.coturn["coturn-new"] = (program, None)

    def close(self):
        for place in self.veth, self.loop:
            if place:
                place.close()
        super().close()

    def names(self, *names):
        return [*names, *self.coturn]

    def turn(self, name, end=None, flags=()):
        """A server; end: behind the wire instead of on loopback."""
        address = self.veth.address["server"] if end else "127.0.0.1"
        enter = self.veth.enter("server") if end else self.loop.enter() if self.loop else []
        if name in BARE:
            kind = {"recv/send": "plain", "gro-gso": "gro", "splice": "splice"}[name]
            server = Server(name, [*enter, self.bin / "bench-turn", kind, address, "@PORT@"],
                            self.server_core, relay="bare")
        elif name in RIVALS:
            program = self.coturn["coturn-new" if name == "coturn-best" else name]
            server = Coturn(name, *program, self.server_core, address, enter,
                            BEST if name == "coturn-best" else ())
        else:
            data = tempfile.mkdtemp(prefix="sluice-bench-data-")
            server = Server(name, [
                *enter, self.bin / "sluice", "--preset", "turn", "--data", data, "--listen-turn",
                f"{address}:@PORT@", "--listen-http", "off", "--shards", 1, "--turn-secret", SECRET,
                # The relay's own address has to be named; a range that it lies in is not enough.
                "--turn-allow-peer", "127.0.0.0/8", "--turn-allow-peer", "127.0.0.1/32",
                "--turn-allow-peer", "10.66.0.0/24",
                "--turn-ports", "10000-65535", "--turn-replies-per-ip", "0", "--log-level", "warn",
                *flags], self.server_core, relay="turn", data=data)
        server.address, server.end = address, end
        return server

    def turn_load(self, server, args):
        """One run of the generator: its JSON, or None."""
        command = [self.bin / "load-turn", "--to", f"{server.address}:{server.port}", "--json",
                   "--quiet", "--server-pid", server.process.pid, *args]
        command += ["--bare"] if server.relay == "bare" else ["--secret", SECRET]
        if "--duration" not in args:
            command += ["--duration", self.opt.duration]
        if server.end:
            command = [*self.veth.enter("load"), *command, "--bind", self.veth.address["load"],
                       "--kernel-pid", self.veth.napi["server"]]
        elif self.loop:
            command = [*self.loop.enter(), *command]
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
            told = {k: result[k] for k in ("mismatches", "doubles", "failed") if k in result}
            words = " ".join("many" if a == SOURCES else str(a) for a in args)
            self.failures.append(f"{server.name} {words}: {why} {told or ''}")
            log("FAILED " + self.failures[-1])
            return None
        return result


def all_of(bench, names, **kw):
    servers = []
    try:
        for name in names:
            servers.append(bench.turn(name, **kw))
    except Exception:
        for s in servers:
            s.stop()
        raise
    return servers


def alternate(bench, servers, args):
    taken = {s.name: [] for s in servers}
    for r in range(bench.opt.rounds):
        for i in range(len(servers)):
            s = servers[(r + i) % len(servers)]
            if s.name in RIVALS and r >= (bench.opt.rival_rounds or bench.opt.rounds):
                continue
            taken[s.name].append(bench.turn_load(s, args))
    return taken


def ratio(a, b, key):
    """Of results of the same round."""
    return spread([key(x) / key(y) for x, y in zip(a, b) if x and y and key(y)])


def column(results, key):
    return spread([key(r) for r in results if r])


def ns(r):
    return r["cpu_ns_per_datagram"]


# ---- groups ------------------------------------------------------------------------------------

COLUMNS = {"gro": ("GSO sender, GRO sink", ["--sink", "gro"]),
           "plain": ("GSO sender, plain sink", ["--sink", "plain"]),
           "wire": ("plain senders, GRO sink, veth", ["--sink", "gro", "--plain-senders", "--sleep"])}


def train_rows(bench, kind, servers):
    rows = []
    for size in SIZES:
        for train in TRAINS:
            train = min(train, MOST[size])
            log(f"{COLUMNS[kind][0]}: {size} bytes, trains of {train}")
            taken = alternate(bench, servers, [*COLUMNS[kind][1], "--size", size, "--train", train])
            us = taken["sluice"]
            row = {"column": kind, "size": size, "train": train,
                   "cpu_ns": {n: column(rs, ns) for n, rs in taken.items()},
                   "per_s": {n: column(rs, lambda r: r["datagrams_per_s"]) for n, rs in taken.items()},
                   "server_busy": {n: column(rs, lambda r: (r["server_cpu_s"] + r["softirq_cpu_s"]) /
                                             r["seconds"]) for n, rs in taken.items()},
                   "per_read": {n: column(rs, lambda r: r["received"] / max(1, r["reads"]))
                                for n, rs in taken.items()},
                   "lost": {n: sum(r["lost"] for r in rs if r) for n, rs in taken.items()},
                   "to_us": {n: ratio(rs, us, ns) for n, rs in taken.items() if n != "sluice"}}
            rows.append(row)
    return rows


def trains(bench):
    servers = all_of(bench, bench.names("sluice", "recv/send", "gro-gso"))
    try:
        return [row for kind in ("gro", "plain") for row in train_rows(bench, kind, servers)]
    finally:
        for s in servers:
            s.stop()


def wire(bench):
    if os.geteuid():
        raise Missing("the wire: namespaces need root")
    try:
        bench.veth = Veth({"server": bench.server_core, "load": bench.load_core})
    except (OSError, subprocess.CalledProcessError) as e:
        raise Missing(f"the wire: {e}") from None
    servers = all_of(bench, bench.names("sluice", "recv/send", "gro-gso"), end="server")
    try:
        return train_rows(bench, "wire", servers)
    finally:
        for s in servers:
            s.stop()


def crowd(bench):
    """Many allocations, each a train at a time, both directions."""
    servers = all_of(bench, bench.names("sluice"))
    rows = []
    try:
        for count in (10, 100) if bench.opt.quick else (10, 1000):
            for train in (1, 16):
                log(f"{count} allocations, trains of {train}, both ways")
                taken = alternate(bench, servers, [
                    "--allocations", count, "--train", train, "--size", 1200, "--direction", "both",
                    "--bind", SOURCES])
                rows.append({"allocations": count, "train": train,
                             "cpu_ns": {n: column(rs, ns) for n, rs in taken.items()},
                             "lost": {n: sum(r["lost"] for r in rs if r) for n, rs in taken.items()},
                             "to_us": {n: ratio(rs, taken["sluice"], ns) for n, rs in taken.items()
                                       if n != "sluice"}})
    finally:
        for s in servers:
            s.stop()
    return rows


def allocations(bench):
    """A server of its own for every run: freed ports rest for two minutes here, and coturn keeps what
    has been given up for a while."""
    lives = 2000 if bench.opt.quick else 15000
    rows = []
    for kind, args in (("fresh", ["--fresh"]), ("same sockets", [])):
        names = bench.names("sluice") if kind == "fresh" else ["sluice"]
        taken = {n: [] for n in names}
        log(f"allocations per second, {kind}")
        for r in range(bench.opt.rounds):
            for i in range(len(names)):
                server = bench.turn(names[(r + i) % len(names)])
                try:
                    taken[server.name].append(bench.turn_load(server, [
                        "--alloc-rate", "--warm", 0.1, "--duration", 10, "--lives", lives, "--bind",
                        SOURCES, *args]))
                finally:
                    server.stop()
        rows.append({"kind": kind,
                     "per_s": {n: column(rs, lambda r: r["lives_per_s"]) for n, rs in taken.items()},
                     "cpu_us": {n: column(rs, lambda r: r["cpu_us_per_life"])
                                for n, rs in taken.items()},
                     "to_us": {n: ratio(rs, taken["sluice"], lambda r: r["cpu_us_per_life"])
                               for n, rs in taken.items() if n != "sluice"},
                     "per_s_of_us": {n: ratio(taken["sluice"], rs, lambda r: r["lives_per_s"])
                                     for n, rs in taken.items() if n != "sluice"}})
    return rows


def memory(bench):
    steps = (100, 500) if bench.opt.quick else (1000, 5000, 10000)
    rows = []
    for name in bench.names("sluice"):
        log(f"memory: {name}")
        server = bench.turn(name)
        try:
            r = bench.turn_load(server, ["--idle", "--steps", ",".join(map(str, steps)), "--settle", 2,
                                         "--duration", 3, "--bind", SOURCES])
        finally:
            server.stop()
        if r:
            rows.append({"name": name, "memory": r["memory"], "kib": r["kib_per_allocation"],
                         "idle_cpu": r["server_cpu_s"] / r["seconds"]})
    return rows


def streams(bench):
    """RFC 6062 beside a bare splice loop, over cubic."""
    try:
        bench.loop = Loop()
    except (OSError, subprocess.CalledProcessError) as e:
        raise Missing(f"streams: a namespace whose routes say cubic (root?): {e}") from None
    servers, rows = [], []
    try:
        servers = all_of(bench, bench.names("sluice", "splice"))
        for count in (1, 16):
            log(f"RFC 6062, {count} streams")
            taken = alternate(bench, servers, ["--tcp-relay", "--allocations", count])
            rows.append({"streams": count,
                         "cpu_s_per_gib": {n: column(rs, lambda r: r["cpu_s_per_gib"])
                                           for n, rs in taken.items()},
                         "mib_per_s": {n: column(rs, lambda r: r["bytes"] / 2**20 / r["seconds"])
                                       for n, rs in taken.items()},
                         "to_us": {n: ratio(rs, taken["sluice"], lambda r: r["cpu_s_per_gib"])
                                   for n, rs in taken.items() if n != "sluice"}})
    finally:
        for s in servers:
            s.stop()
        bench.loop.close()
        bench.loop = None
    return rows


def busy_ns(process):
    """Of all its threads, since they began: the scheduler's own account, not the timer tick's."""
    return sum(int(p.read_text().split()[0])
               for p in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"))


def flood_rates(text):
    """Seconds of its progress lines, less the first, which has begun before the flood."""
    return [(float(s), float(r)) for s, r in
            re.findall(r"send_pps=([0-9.]+), recv_pps=([0-9.]+)", text)][1:]


def flood_once(bench, server, tools, size):
    """coturn's client sends all it can to its echoing peer through the server: what comes back. One
    session, for with --multiplex-peer a peer belongs to one; None when the client gave up, which it
    does whenever the channel that it drew at random is refused."""
    port, pinned = free_port(), lambda: os.sched_setaffinity(0, bench.load_core)
    quiet = {"stdin": subprocess.DEVNULL, "preexec_fn": pinned}
    peer = subprocess.Popen([tools / "turnutils_peer", "-L", "127.0.0.1", "-p", str(port)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **quiet)
    try:
        with tempfile.TemporaryFile("w+") as out:
            client = subprocess.Popen(
                [tools / "turnutils_uclient", "-Y", "packet", "-m", "1", "-l", str(size), "-e",
                 "127.0.0.1", "-r", str(port), "-u", "bench", "-W", SECRET, "-p", str(server.port),
                 "--no-even-port", "127.0.0.1"], stdout=out, stderr=out, **quiet)
            time.sleep(1.5)
            if client.poll() is not None:
                return None
            processes, began = (client, peer, server.process), time.monotonic()
            before = [busy_ns(p) for p in processes]
            time.sleep(max(2, bench.opt.duration))
            after = [busy_ns(p) for p in processes]
            spent = time.monotonic() - began
            client.kill()
            client.wait()
            out.seek(0)
            rates = flood_rates(out.read())
    finally:
        peer.kill()
        peer.wait()
    if len(rates) < 2:
        return None
    of_client, of_peer, of_server = ((b - a) / 1e9 / spent for a, b in zip(before, after))
    sent, received = (sum(column) / len(rates) for column in zip(*rates))
    return {"sent_per_s": sent, "received_per_s": received, "lost": 1 - received / max(sent, 1),
            "client_busy": of_client + of_peer, "server_busy": of_server,
            "server_ns": of_server * 1e9 / max(received, 1)}


def flood(bench):
    """With coturn's own generator: --coturn PATH."""
    if "coturn-new" not in bench.coturn:
        log("flood: only with --coturn PATH")
        return []
    tools = pathlib.Path(bench.coturn["coturn-new"][0]).parent
    if not (tools / "turnutils_uclient").exists():
        raise Missing(f"--coturn: no turnutils_uclient beside {tools}/turnserver")
    rows = []
    servers = all_of(bench, ("sluice", "coturn-new", "coturn-best"))
    try:
        for size in SIZES:
            log(f"coturn's flood generator, {size} bytes")
            taken = {s.name: [] for s in servers}
            for r in range(bench.opt.rounds):
                for i in range(len(servers)):
                    s = servers[(r + i) % len(servers)]
                    got = next(filter(None, (flood_once(bench, s, tools, size)
                                             for _ in range(FLOOD_TRIES))), None)
                    taken[s.name].append(got)
                    if not got:
                        bench.failures.append(f"{s.name}: turnutils_uclient -Y packet, {size} bytes")
            rows.append({"size": size,
                         "per_s": {n: column(rs, lambda r: r["received_per_s"])
                                   for n, rs in taken.items()},
                         **{key: {n: column(rs, lambda r: r[key]) for n, rs in taken.items()}
                            for key in ("sent_per_s", "lost", "client_busy", "server_busy",
                                        "server_ns")},
                         "of_us": {n: ratio(taken["sluice"], rs, lambda r: r["received_per_s"])
                                   for n, rs in taken.items() if n != "sluice"}})
    finally:
        for s in servers:
            s.stop()
    return rows


GROUPS = {"trains": trains, "wire": wire, "crowd": crowd, "allocations": allocations,
          "memory": memory, "streams": streams, "flood": flood}


# ---- the report --------------------------------------------------------------------------------

def bars_of(g):
    """(what, wanted, measured, met) for each line under Reach of which there are figures."""
    out = []

    def say(what, wanted, rows, key, bound, at_least=True):
        rows = [r for r in rows if key(r)]
        if not rows:
            return
        worst = (min if at_least else max)(rows, key=lambda r: key(r)["median"])
        value = key(worst)["median"]
        out.append((what, wanted, f"{value:.2f} ({worst['size']} bytes, {worst['train']})"
                    if "size" in worst else f"{value:.2f}",
                    value >= bound if at_least else value <= bound))

    rows = [r for name in ("trains", "wire") for r in g.get(name, [])]
    for kind, bound in (("gro", 0.70), ("plain", 0.85)):
        say(f"share of the bare GRO-GSO loop, {COLUMNS[kind][0]}, worst", f">= {bound:.2f}",
            [r for r in rows if r["column"] == kind and r["train"] > 1],
            lambda r: r["to_us"].get("gro-gso"), bound)
    singles = [r for r in rows if r["train"] == 1 and r["column"] != "wire"]
    say("recv/send loop ÷ us, singles, worst", f">= {1 / 1.1:.2f}", singles,
        lambda r: r["to_us"].get("recv/send"), 1 / 1.1)
    say("coturn ÷ us, singles, worst", ">= 1.00", singles, lambda r: r["to_us"].get("coturn"), 1.0)
    for train, bound in ((16, 8.0), (64, 15.0)):
        say(f"coturn ÷ us, GRO sinks, trains of {train}, worst", f">= {bound:.0f}",
            [r for r in rows if r["column"] == "gro" and r["train"] == min(train, MOST[r["size"]])],
            lambda r: r["to_us"].get("coturn"), bound)
    say("share of the bare splice loop, RFC 6062, worst", ">= 0.85", g.get("streams", []),
        lambda r: r["to_us"].get("splice"), 0.85)
    fresh = [r for r in g.get("allocations", []) if r["kind"] == "fresh"]
    say("allocations per second ÷ coturn's", ">= 5", fresh, lambda r: r["per_s_of_us"].get("coturn"), 5)
    say("the same per CPU-second of the server", ">= 5", fresh, lambda r: r["to_us"].get("coturn"), 5)
    for r in g.get("flood", []):
        busy = r["client_busy"]["sluice"]
        for name, bound in (("coturn-new", 4), ("coturn-best", 2)):
            if r["of_us"].get(name) and busy:
                value = r["of_us"][name]["median"]
                out.append((f"received rate ÷ {name}'s, its own generator, {r['size']} bytes",
                            f">= {bound}, or client >= 95 % busy",
                            f"{value:.2f}, {100 * busy['median']:.0f} %",
                            value >= bound or busy["median"] >= 0.95))
    for r in g.get("memory", []):
        if r["name"] == "sluice":
            out.append(("KiB of the process per idle allocation", "<= 2", f"{r['kib']:.2f}",
                        r["kib"] <= 2))
    return out


def cost_table(first, rows, cells, key, digits):
    names = list(dict.fromkeys(n for r in rows for n in r[key]))
    others = [n for n in names if n != "sluice"]
    return report.table([*first, *names, *(f"{n} / us" for n in others)],
                        [[*cells(r), *(show(r[key].get(n), digits) for n in names),
                          *(show(r["to_us"].get(n), 2) for n in others)] for r in rows])


def text_of(res):
    g, m, parts = res["groups"], res["machine"], []
    parts.append(f"# turn\n\n{m['when']}, {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, "
                 f"commit {m['commit']}{' with changes' if m['changed'] else ''}, load at the start "
                 f"{m['load']}; {res['rounds']} rounds of {res['duration_s']} s; median [quartiles].")
    reach = bars_of(g)
    if reach:
        parts.append("## Reach\n\n" + report.table(
            ["", "wanted", "measured", ""], [[*r[:3], "met" if r[3] else "**missed**"] for r in reach]))
    for name in ("trains", "wire"):
        for kind, (title, _) in COLUMNS.items():
            rows = [r for r in g.get(name, []) if r["column"] == kind]
            if rows:
                parts.append(f"## CPU, ns per relayed datagram: {title}\n\n" + cost_table(
                    ["bytes", "train"], rows, lambda r: [r["size"], r["train"]], "cpu_ns", 0))
    if g.get("crowd"):
        parts.append("## CPU, ns per relayed datagram: many allocations, both ways\n\n" + cost_table(
            ["allocations", "train"], g["crowd"], lambda r: [r["allocations"], r["train"]],
            "cpu_ns", 0))
    if g.get("allocations"):
        parts.append("## Allocate and release\n\n" + report.table(
            ["", "server", "per second", "µs of CPU each"],
            [[r["kind"], n, show(r["per_s"][n], 0), show(r["cpu_us"][n], 1)]
             for r in g["allocations"] for n in r["per_s"]]))
    if g.get("memory"):
        parts.append("## Memory of idle allocations, KiB resident\n\n" + report.table(
            ["server", "allocations: KiB", "KiB each", "CPU"],
            [[r["name"], ", ".join(f"{x['allocations']}: {x['rss_kib']}" for x in r["memory"]),
              f"{r['kib']:.2f}", f"{100 * r['idle_cpu']:.2f} %"] for r in g["memory"]]))
    if g.get("streams"):
        parts.append("## RFC 6062, CPU-seconds per GiB\n\n" + cost_table(
            ["streams"], g["streams"], lambda r: [r["streams"]], "cpu_s_per_gib", 3))
    if g.get("flood"):
        parts.append("## coturn's generator: datagrams per second that came back\n\n" + report.table(
            ["bytes", "server", "per second", "lost", "client's core busy", "server's",
             "server's ns each", "us / it"],
            [[r["size"], n, show(r["per_s"][n], 0), show(r["lost"][n], 2),
              show(r["client_busy"][n], 2), show(r["server_busy"][n], 2),
              show(r["server_ns"][n], 0), show(r["of_us"].get(n), 2)]
             for r in g["flood"] for n in r["per_s"]]))
    if res["failures"]:
        parts.append("## Failures\n\n" + "\n".join("- " + f for f in res["failures"]))
    return "\n\n".join(parts)


def pictures_of(res):
    g, out = res["groups"], {}
    for kind in COLUMNS:
        rows = [r for name in ("trains", "wire") for r in g.get(name, []) if r["column"] == kind]
        if rows:
            out[kind] = report.bars(f"CPU per relayed datagram, {COLUMNS[kind][0]}", "ns", [
                (f"{r['size']} x {r['train']}", list(r["cpu_ns"].items())) for r in rows])
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
        bench = TurnBench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    res = {"name": "turn", "machine": report.machine(ROOT), "duration_s": opt.duration,
           "rounds": opt.rounds, "pinning": {"server": sorted(bench.server_core),
                                             "generator": sorted(bench.load_core)},
           "groups": earlier(opt.out / "turn.json", opt.only), "failures": bench.failures}
    code = 0
    try:
        for name in only:
            try:
                res["groups"][name] = GROUPS[name](bench)
            except Missing as e:  # the others can do without
                print(e, file=sys.stderr)
                code = 77
            report.write(opt.out, "turn", res, text_of(res), pictures_of(res))
    except Failed as e:
        bench.failures.append(str(e))
    finally:
        bench.close()
    report.write(opt.out, "turn", res, text_of(res), pictures_of(res))
    print(json.dumps(res) if opt.json else text_of(res))
    log(f"{time.time() - began:.0f} s; results in {os.path.relpath(opt.out)}/turn.*")
    return 1 if bench.failures else code
