# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: the daemon, the bare loop, the rivals; each started, pinned and stopped alike."""
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = 20000


class Missing(Exception):
    """Something to run is not there; says what, and the cure."""


class Failed(Exception):
    """A run ended badly: loss, mismatch, or a relay that gave up."""


def log(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def lift_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = hard if hard != resource.RLIM_INFINITY and hard < FILES else FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def build(directory):
    """The programs of this tree, built if need be."""
    want = ["engine/sluice", "tools/load-p2p", "tools/load-turn", "tools/load-dig", "tools/load-rdv",
            "bench/bench-bare", "bench/bench-turn", "bench/bench-dig"]
    directory = pathlib.Path(directory)
    if not (directory / "build.ninja").exists():
        log("building")
        if subprocess.run([ROOT / "tools" / "build"], stdout=sys.stderr).returncode:
            raise Missing("the build failed: tools/build")
    elif subprocess.run(["ninja", "-C", directory, *want], stdout=subprocess.DEVNULL).returncode:
        raise Missing(f"the build failed: ninja -C {directory}")
    # Copies: a build in the meantime must not change what is being measured.
    copies = pathlib.Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    for name in want:
        shutil.copy2(directory / name, copies / pathlib.Path(name).name)
    return copies


def rival(name):
    setup = ROOT / "bench" / "peers" / "setup"
    if subprocess.run([setup, name], stdout=sys.stderr).returncode:
        raise Missing(f"{name} relay: bench/peers/setup {name}")
    return subprocess.check_output([setup, "--where", name], text=True).strip()


class Server:
    """One process under load. cores: None is all of them."""

    def __init__(self, name, command, cores, relay="libp2p", data=None, http=None):
        self.name, self.relay, self.data, self.cores, self.http = name, relay, data, cores, http
        self.log = tempfile.TemporaryFile(mode="w+")
        self.port = free_port()
        command = [str(w).replace("@PORT@", str(self.port)) for w in command]
        self.command = command
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, preexec_fn=self._prepare)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _prepare(self):
        lift_files()
        if self.cores:
            os.sched_setaffinity(0, self.cores)

    def _wait(self):
        for _ in range(200):
            self.log.seek(0)
            if " address: " in self.log.read():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise Failed(f"{self.name} did not start: {self.log.read()[-400:]}")

    def counters(self, prefix):
        """What /metrics counts under such names."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=5) as r:
            lines = r.read().decode().splitlines()
        return {w[0][len(prefix):]: float(w[1]) for w in map(str.split, lines)
                if w and w[0].startswith(prefix)}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.data:
            shutil.rmtree(self.data, ignore_errors=True)
        self.log.close()


class Bench:
    """Programs, pinning, and the generator's runs."""

    def __init__(self, opt):
        self.opt = opt
        self.bin = build(opt.build)
        self.paths = {}
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = {cores[0]}
        self.load_core = {cores[-1]}
        self.failures = []

    def close(self):
        shutil.rmtree(self.bin, ignore_errors=True)

    def server(self, name, shards=1, pinned=True, lifted=True, metrics=False):
        """lifted: without the limits that would stop us; the rivals always are."""
        cores = self.server_core if pinned else None
        if name in ("bare", "null", "flip", "drop"):
            spoil = [name] if name in ("flip", "drop") else []
            return Server(name, [self.bin / "bench-bare", "127.0.0.1", "@PORT@", *spoil], cores,
                          relay="raw" if name == "null" else "bare")
        if name in ("rust", "go", "go-64k"):
            kind = name.split("-")[0]
            if kind not in self.paths:
                self.paths[kind] = rival(kind)
            args = ["-buffer", "65536"] if name == "go-64k" else []
            return Server(name, [self.paths[kind], *args, "127.0.0.1", "@PORT@"], cores)
        data = tempfile.mkdtemp(prefix="sluice-bench-data-")
        http = free_port() if metrics else None
        command = [self.bin / "sluice", "--data", data, "--listen-p2p", "127.0.0.1:@PORT@",
                   "--listen-dig", "off", "--listen-turn", "off",
                   "--listen-http", f"127.0.0.1:{http}" if http else "off",
                   "--shards", shards, "--log-level", "warn"]
        if lifted:
            command += ["--max-reservations", "20000", "--max-reservations-per-peer", "0",
                        "--max-circuits-per-peer", "0", "--max-conns-per-peer", "0"]
        return Server(name, command, cores, data=data, http=http)

    def load(self, server, args, pinned=True):
        """One run of the generator against a server: its JSON."""
        command = [self.bin / "load-p2p", f"127.0.0.1:{server.port}", "--json", "--quiet",
                   "--relay", server.relay, "--server-pid", server.process.pid, *args]
        if "--duration" not in args:
            command += ["--duration", self.opt.duration]
        if server.data:
            command += ["--admin", pathlib.Path(server.data) / "admin.sock"]
        prepare = (lambda: os.sched_setaffinity(0, self.load_core)) if pinned else None
        try:
            done = subprocess.run([str(w) for w in command], capture_output=True, text=True,
                                  timeout=300, preexec_fn=prepare)
        except subprocess.TimeoutExpired:
            done = None
        try:
            result = json.loads(done.stdout) if done else {"ok": False}
        except ValueError:
            result = {"ok": False}
        if not result["ok"]:
            why = done.stderr.strip()[-300:] if done else "no end in 300 s"
            told = {k: result[k] for k in ("mismatches", "resets", "failed", "stuck") if k in result}
            self.failures.append(f"{server.name} {' '.join(map(str, args))}: {why} {told or ''}")
            log("FAILED " + self.failures[-1])
            return None
        return result
