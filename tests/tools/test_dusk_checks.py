"""Each of the 65 checks of dusk.md §13 is named by a test: in its name (test_dusk_36_38_…), its
docstring (dusk_17), of C in a comment; those of test_gossip.py by their number alone."""

import ast
import re

from conftest import ROOT

CHECKS = 65
NUMBER = re.compile(r"dusk((?:_\d\d)+)(?!\d)")


def numbers(text):
    return {int(n) for run in NUMBER.findall(text) for n in run[1:].split("_")}


def python_tests(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name, node.name + " " + (ast.get_docstring(node) or "")


def named():
    """{number: where}"""
    found = {}
    for path in sorted((ROOT / "tests" / "e2e").glob("test_*.py")):
        for name, words in python_tests(path):
            if path.name == "test_gossip.py":
                words = re.sub(r"^test((?:_\d\d)+)_", r"dusk\1_", words)
            for n in numbers(words):
                found.setdefault(n, []).append("%s::%s" % (path.name, name))
    for path in sorted((ROOT / "tests").glob("[us]*/test_*.c")):
        for line in path.read_text().splitlines():
            for n in numbers(line):
                found.setdefault(n, []).append(path.name)
    return found


def test_every_check_of_dusk_is_named_by_a_test():
    found = named()
    missing = [n for n in range(1, CHECKS + 1) if n not in found]
    assert not missing, "no test bears the number of %s" % missing
    assert max(found) <= CHECKS, found[max(found)]


def test_the_numbers_are_read_as_they_are_written():
    assert numbers("test_dusk_36_38_39_40_the_directory") == {36, 38, 39, 40}
    assert numbers("And dusk_03, dusk_61.") == {3, 61}
    assert numbers("test_dusk_every_refresh, dusk_relay] 64") == set()
