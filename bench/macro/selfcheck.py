# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run selfcheck: does the generator tell right from wrong, in every mode and framing?"""
import sys

from macro.servers import Bench, Failed, Missing, log

GOOD = [
    ("bare", []), ("null", ["--framing", "go"]), ("bare", ["--both", "--framing", "rust"]),
    ("bare", ["--mode", "message"]), ("bare", ["--rate", "20000000"]),
    ("sluice", ["--framing", "1k"]), ("sluice", ["--framing", "rust", "--both"]),
    ("sluice", ["--framing", "go", "--both"]), ("sluice", ["--rate", "20000000"]),
    ("sluice", ["--circuits", "4", "--pairs", "2", "--idle-circuits", "120"]),
    ("sluice", ["--mode", "message", "--sleep", "--placement", "same"]),
    ("sluice", ["--circuits", "4", "--placement", "cross"]),
    ("sluice", ["--mode", "setup"]), ("sluice", ["--mode", "churn"]),
    ("sluice", ["--mode", "handshake"]), ("sluice", ["--mode", "idle", "--steps", "10,50"]),
]
BAD = [("flip", []), ("drop", []), ("flip", ["--both", "--framing", "go"])]


def run(opt):
    opt.duration = min(opt.duration, 0.5)
    try:
        bench = Bench(opt)
    except Missing as e:
        print(e, file=sys.stderr)
        return 77
    wrong = 0
    try:
        for name, args in GOOD + BAD:
            server = bench.server(name, **({"shards": 2} if name == "sluice" else {}))
            bench.failures.clear()
            try:
                passed = bench.load(server, args) is not None
            finally:
                server.stop()
            right = passed == ((name, args) in GOOD)
            wrong += not right
            print(f"{'ok    ' if right else 'WRONG '} {name} {' '.join(args)}")
    except Failed as e:
        log(str(e))
        wrong += 1
    finally:
        bench.close()
    return 1 if wrong else 0
