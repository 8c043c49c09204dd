# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run rdv: registrations that are on the disk before they are acknowledged, and what finding a
hundred of them takes. bench/README.md explains the method."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from macro import rdv_beside, report
from macro.report import show, spread
from macro.servers import ROOT, Bench, Missing, Server, free_port, log

PRESENT = 1000000
RATE, P99_US, FIND_US = 20000, 60000, 100  # issue 6: at least, at most, at most
OPEN = 20000  # registrations per second that are sent whether or not the last are acknowledged
LIFTED = ["--max-registrations", "0", "--max-registrations-per-peer", "0",
          "--max-registrations-per-namespace", "0", "--max-conns-per-peer", "0"]


def syncs(directory, seconds=1.0):
    """fdatasync after each 4 KiB page: what the disk itself bears, a second."""
    path = pathlib.Path(directory) / "sync-probe"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(1 << 20), 0)
        os.fdatasync(fd)
        began, n = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            os.pwrite(fd, os.urandom(4096), n % 256 * 4096)
            os.fdatasync(fd)
            n += 1
        return n / (time.monotonic() - began)
    finally:
        os.close(fd)
        path.unlink()


class RdvBench(Bench):
    def server(self, directory):
        data, http = tempfile.mkdtemp(prefix="rdv-", dir=directory), free_port()
        return Server("sluice", [
            self.bin / "sluice", "--data", data, "--listen-p2p", "127.0.0.1:@PORT@", "--listen-dig", "off",
            "--listen-turn", "off", "--listen-http", f"127.0.0.1:{http}", "--shards", 2, "--log-level",
            "warn", *LIFTED], None, data=data, http=http)

    def rdv_load(self, server, seed, *args):
        command = [self.bin / "load-rdv", f"127.0.0.1:{server.port}", "--server-pid", server.process.pid,
                   "--seed", seed, "--duration", self.opt.duration, *args]
        done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=900)
        try:
            result = json.loads(done.stdout)
        except ValueError:
            result = {"ok": False}
        if not result["ok"]:
            self.failures.append(f"{' '.join(map(str, args))}: {done.stderr.strip()[-300:]} {result}")
            log("FAILED " + self.failures[-1])
            return None
        return result


def measure(bench, present, directory):
    """Rounds on one store, which grows a little with each; the first fills it."""
    server, full, even, disk = bench.server(directory), [], [], []
    try:
        for r in range(bench.opt.rounds):
            disk.append(syncs(directory))
            fill = ["--fill", present] if present and not r else []
            log(f"{present} present, round {r + 1} of {bench.opt.rounds}")
            full.append(bench.rdv_load(server, 2 * r + 1, *fill))
            even.append(bench.rdv_load(server, 2 * r + 2, "--rate", OPEN))
    finally:
        server.stop()
    full, even = [f for f in full if f], [e for e in even if e]

    def of(results, phase, *keys):
        values = []
        for one in results:
            value = one[phase]
            for key in keys:
                value = value[key]
            values.append(value)
        return spread(values)
    return {"present": present,
            "per_s": of(full, "register", "per_s"),
            "full_us": {q: of(full, "register", "latency_us", q) for q in ("p50", "p99")},
            "even_per_s": of(even, "register", "per_s"),
            "even_us": {q: of(even, "register", "latency_us", q) for q in ("p50", "p99", "max")},
            "register_cpu_us": of(full, "register", "server_cpu_us"),
            "find_us": {q: of(full, "discover one", "latency_us", q) for q in ("p50", "p99")},
            "find_cpu_us": of(full, "discover many", "server_cpu_us"),
            "find_per_s": of(full, "discover many", "per_s"),
            "find_bytes": of(full, "discover many", "bytes_each"),
            "fdatasync_per_s": spread(disk)}


def beside(bench, directory):
    server = bench.server(directory)
    try:
        return rdv_beside.measure(bench, server)
    finally:
        server.stop()


def text_of_beside(told):
    rows = [[name, show(r["mib_per_s"], 0), show(r["cpu_s_per_gib"]), r["sojourn_p99_us_at_most"],
             show(r["regs_per_s"], 0), show(r["store_share"], 2)] for name, r in told.items()]
    return report.table(["", "MiB/s relayed", "shard CPU s per GiB", "sojourn p99, at most µs",
                         "registrations per second", "store's thread, cores"], rows)


def text_of(results):
    rows = [[r["present"], show(r["per_s"], 0), show(r["full_us"]["p99"], 0), show(r["even_per_s"], 0),
             show(r["even_us"]["p50"], 0), show(r["even_us"]["p99"], 0), show(r["register_cpu_us"], 1),
             show(r["fdatasync_per_s"], 0)] for r in results["rows"]]
    finds = [[r["present"], show(r["find_us"]["p50"], 0), show(r["find_us"]["p99"], 0),
              show(r["find_cpu_us"], 1), show(r["find_per_s"], 0)] for r in results["rows"]]
    m = results["machine"]
    return "\n\n".join([
        "# Rendezvous", f"{m['when']}, {m['cpu']}, Linux {m['kernel']}, {m['cores']} cores, load "
        f"{m['load']}, commit {m['commit']}{' with changes' if m['changed'] else ''}; "
        f"{results['rounds']} rounds of {results['duration_s']} s. Median [quartiles].",
        "## Registrations, acknowledged after their commit",
        report.table(["present", "per second, as they are acknowledged", "p99 µs",
                      f"per second, {OPEN} sent", "p50 µs", "p99 µs", "CPU µs each",
                      "fdatasync per second"], rows),
        f"Reach: {RATE} a second, p99 {P99_US} µs.",
        "## DISCOVER of 100 records",
        report.table(["present", "alone, p50 µs", "p99 µs", "CPU µs each", "per second, many at once"],
                     finds),
        f"Reach: {FIND_US} µs.",
        *(["## Circuits on one shard while the other one's registrations saturate the store",
           text_of_beside(results["beside"]), "Reach: CPU at most 1.1 times, sojourn p99 at most twice."]
          if results["beside"] else [])])


def run(opt):
    try:
        bench = RdvBench(opt)
    except Missing as e:
        log(str(e))
        return 77
    # Beside the tree, not in /tmp, which may be memory.
    directory = tempfile.mkdtemp(prefix="tmp-rdv-", dir=ROOT / "bench" / "results")
    try:
        only = set((opt.only or "store,beside").split(","))
        steps = () if "store" not in only else (0, 20000) if opt.quick else (0, PRESENT)
        results = {"machine": report.machine(ROOT), "rounds": opt.rounds, "duration_s": opt.duration,
                   "rows": [measure(bench, present, directory) for present in steps],
                   "beside": beside(bench, directory) if "beside" in only else None,
                   "failures": bench.failures}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        bench.close()
    text = text_of(results)
    report.write(opt.out, "rdv", results, text, {})
    print(json.dumps(results, indent=1) if opt.json else text)
    return 1 if bench.failures else 0
