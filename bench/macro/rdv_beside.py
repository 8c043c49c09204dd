# SPDX-License-Identifier: GPL-3.0-or-later
"""What circuits cost while the store is saturated with writes: one shard carries a circuit at a fixed
rate, all registrations come to the other one; the first one's thread and the turns are looked at in
windows without and with the writes, in turn."""
import json
import pathlib
import socket
import subprocess
import time

from macro.report import spread
from macro.servers import log

RATE = 200 << 20  # bytes per second through the circuit: the machine has to bear both loads
WINDOW_S = 2
BOUNDS = {"10us_total": 10, "25us_total": 25, "50us_total": 50, "100us_total": 100, "250us_total": 250,
          "1ms_total": 1000, "more_total": 1000000}


def admin(server, word):
    """The rows that the admin socket answers with."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(pathlib.Path(server.data) / "admin.sock"))
        s.sendall(word.encode() + b"\n")
        lines = s.makefile().read().splitlines()
    return [json.loads(line) for line in lines][:-1]


def thread_ns(server, name):
    """CPU of the thread of that name."""
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int((task / "schedstat").read_text().split()[0])
    raise LookupError(name)


def look(server, shard):
    told = server.counters("sluice_")
    return {"ns": thread_ns(server, f"shard-{shard}"), "store_ns": thread_ns(server, "keeper"),
            "bytes": sum(v for k, v in told.items() if k.startswith("circuit_bytes_total")),
            "regs": told.get('rendezvous_total{event="registered"}', 0),
            "turns": {b: told[f"sojourn_{b}"] for b in BOUNDS}, "at": time.monotonic()}


def window(server, shard):
    a = look(server, shard)
    time.sleep(WINDOW_S)
    b = look(server, shard)
    seconds, moved = b["at"] - a["at"], b["bytes"] - a["bytes"]
    return {"cpu_s_per_gib": (b["ns"] - a["ns"]) * 1e-9 / (moved / 2 ** 30),
            "mib_per_s": moved / 2 ** 20 / seconds, "regs_per_s": (b["regs"] - a["regs"]) / seconds,
            "store_share": (b["store_ns"] - a["store_ns"]) * 1e-9 / seconds,
            "turns": {k: b["turns"][k] - a["turns"][k] for k in BOUNDS}}


def p99(windows):
    turns = {b: sum(w["turns"][b] for w in windows) for b in BOUNDS}
    seen, total = 0, sum(turns.values())
    for b, bound in BOUNDS.items():
        seen += turns[b]
        if total and seen >= 0.99 * total:
            return bound
    return None


def shard_of_circuit(server):
    for _ in range(100):
        rows = admin(server, "conns")
        busy = [r for r in rows if r["rx_bytes"] > 8 << 20]
        if busy:
            return busy[0]["shard"]
        time.sleep(0.05)
    raise LookupError("no circuit came up")


def writes(bench, server, shard, seed):
    """Registrations as fast as they are acknowledged, until they are stopped."""
    process = subprocess.Popen(
        [str(w) for w in (bench.bin / "load-rdv", f"127.0.0.1:{server.port}", "--admin",
                          pathlib.Path(server.data) / "admin.sock", "--shard", shard, "--fill", 10 ** 9,
                          "--seed", seed)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    before = look(server, 0)["regs"]
    for _ in range(400):
        if process.poll() is not None or look(server, 0)["regs"] > before + 3000:
            break
        time.sleep(0.05)
    return process


def one_round(bench, server, r, alone, beside):
    data = pathlib.Path(server.data) / "admin.sock"
    circuit = subprocess.Popen(
        [str(w) for w in (bench.bin / "load-p2p", f"127.0.0.1:{server.port}", "--json", "--quiet",
                          "--admin", data, "--placement", "same", "--circuits", 4, "--pairs", 1, "--rate",
                          RATE, "--even", "--duration", 4 * WINDOW_S + 8)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        shard = shard_of_circuit(server)
        alone.append(window(server, shard))
        load = writes(bench, server, 1 - shard, 1000 + r)
        try:
            if load.poll() is not None:
                bench.failures.append("load-rdv: " + load.stderr.read()[-300:])
                return
            beside.append(window(server, shard))
        finally:
            load.kill()
            load.wait()
        time.sleep(0.3)
        alone.append(window(server, shard))
    finally:
        circuit.terminate()
        circuit.wait()


def measure(bench, server):
    alone, beside = [], []
    for r in range(bench.opt.rounds):
        log(f"beside a saturated store, round {r + 1} of {bench.opt.rounds}")
        one_round(bench, server, r, alone, beside)

    def of(windows, key):
        return spread([w[key] for w in windows])
    return {name: {"cpu_s_per_gib": of(windows, "cpu_s_per_gib"), "mib_per_s": of(windows, "mib_per_s"),
                   "regs_per_s": of(windows, "regs_per_s"), "store_share": of(windows, "store_share"),
                   "sojourn_p99_us_at_most": p99(windows)}
            for name, windows in (("alone", alone), ("beside", beside))}
