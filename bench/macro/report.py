# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians with their spread, as a table, as JSON, as a picture."""
import html
import json
import pathlib
import platform
import statistics
import subprocess
import time

COLOURS = {"sluice": "#2a6fbb", "bare": "#999999", "null": "#cccccc", "rust": "#c2571a",
           "go": "#2a9d8f", "go-64k": "#76c7be", "same": "#2a6fbb", "cross": "#d1495b",
           "recv/send": "#cccccc", "gro-gso": "#999999", "splice": "#999999", "coturn": "#c2571a",
           "coturn-new": "#2a9d8f"}


def spread(values):
    """Median and quartiles."""
    values = sorted(v for v in values if v is not None)
    if not values:
        return None
    if len(values) == 1:
        return {"n": 1, "median": values[0], "q1": values[0], "q3": values[0]}
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"n": len(values), "median": statistics.median(values), "q1": q1, "q3": q3}


def show(s, digits=3):
    if not s:
        return "–"
    return f"{s['median']:.{digits}f} [{s['q1']:.{digits}f}–{s['q3']:.{digits}f}]"


def table(head, rows):
    wide = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    lines = ["| " + " | ".join(str(c).ljust(w) for c, w in zip(head, wide)) + " |",
             "|" + "|".join("-" * (w + 2) for w in wide) + "|"]
    lines += ["| " + " | ".join(str(c).ljust(w) for c, w in zip(r, wide)) + " |" for r in rows]
    return "\n".join(lines)


def machine(root):
    def out(*command):
        try:
            return subprocess.check_output(command, text=True, cwd=root,
                                           stderr=subprocess.DEVNULL).strip()
        except (OSError, subprocess.CalledProcessError):
            return "?"

    cpu = "?"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {"when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "cpu": cpu,
            "kernel": platform.release(), "cores": len(out("nproc", "--all").split()) and
            int(out("nproc") or 0), "load": pathlib.Path("/proc/loadavg").read_text().split()[0],
            "commit": out("git", "rev-parse", "--short", "HEAD"),
            "changed": bool(out("git", "status", "--porcelain", "engine", "proto", "tools", "bench"))}


def bars(title, unit, groups):
    """groups: [(label, [(name, spread)])] → an SVG with whiskers from quartile to quartile."""
    bar, gap, left, top, high = 22, 26, 60, 40, 260
    most = max((s["q3"] for _, bs in groups for _, s in bs if s), default=1) * 1.08 or 1
    names = list(dict.fromkeys(n for _, bs in groups for n, _ in bs))
    x, body = left + gap, []

    def y(v):
        return top + high - v / most * high

    for step in range(5):
        v = most * step / 4
        body.append(f'<line x1="{left}" x2="100%" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/>'
                    f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.2g}</text>')
    for label, bs in groups:
        began = x
        for name, s in bs:
            if s:
                middle = x + bar / 2
                body.append(
                    f'<rect x="{x}" y="{y(s["median"]):.1f}" width="{bar - 3}" '
                    f'height="{top + high - y(s["median"]):.1f}" fill="{COLOURS.get(name, "#555")}">'
                    f'<title>{html.escape(f"{label} {name}: {show(s)}")}</title></rect>'
                    f'<line x1="{middle}" x2="{middle}" y1="{y(s["q1"]):.1f}" '
                    f'y2="{y(s["q3"]):.1f}" stroke="#000"/>')
            x += bar
        body.append(f'<text x="{(began + x) / 2}" y="{top + high + 16}" text-anchor="middle">'
                    f'{html.escape(label)}</text>')
        x += gap
    for i, name in enumerate(names):
        body.append(f'<rect x="{left + 110 * i}" y="{top + high + 30}" width="12" height="12" '
                    f'fill="{COLOURS.get(name, "#555")}"/><text x="{left + 110 * i + 17}" '
                    f'y="{top + high + 40}">{html.escape(name)}</text>')
    width = max(x, left + 110 * len(names), 480)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + high + 54}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" '
            f'fill="#fff"/><text x="{left}" y="20" font-size="14">{html.escape(title)} '
            f'({html.escape(unit)})</text>{"".join(body)}</svg>\n')


def write(out, name, results, text, pictures):
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / f"{name}.md").write_text(text + "\n")
    for suffix, svg in pictures.items():
        (out / f"{name}-{suffix}.svg").write_text(svg)
