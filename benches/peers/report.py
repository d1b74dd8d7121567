"""Turns rounds into medians and medians into tables."""

import os
import platform
import re
import statistics
import subprocess
import tomllib
from pathlib import Path

from proxies import PLAIN, SCALE_ONE, SCALE_TWO, SCENARIOS

HERE = Path(__file__).resolve().parent
HEAD = ["scenario", "proxy", "CPU µs/request", "(min-max)", "× HAProxy plain", "× gateway"]
HEAD += ["requests/s", "p50 ms", "p99 ms", "core busy"]


def medians(rounds):
    """`rounds`: {(scenario, proxy): [figures, …]}; returns a list of rows, scenarios and proxies in their order."""
    rows = []
    for (scenario, proxy), figures in rounds.items():
        if not figures:
            rows.append({"scenario": scenario, "proxy": proxy, "rounds": 0})
            continue
        row = {"scenario": scenario, "proxy": proxy, "rounds": len(figures)}
        for key in figures[0]:
            row[key] = statistics.median(figure[key] for figure in figures)
        row["cpu_us_min"] = min(figure["cpu_us"] for figure in figures)
        row["cpu_us_max"] = max(figure["cpu_us"] for figure in figures)
        rows.append(row)
    order = [scenario.title for scenario in SCENARIOS]
    return sorted(rows, key=lambda row: order.index(row["scenario"]))


def cells(rows):
    cpu = {(row["scenario"], row["proxy"]): row["cpu_us"] for row in rows if row["rounds"]}
    for row in rows:
        if not row["rounds"]:
            yield [row["scenario"], row["proxy"], *["-"] * (len(HEAD) - 2)]
            continue
        yield [
            row["scenario"],
            row["proxy"],
            f"{row['cpu_us']:.1f}",
            f"{row['cpu_us_min']:.1f}-{row['cpu_us_max']:.1f}",
            ratio(row["cpu_us"], cpu.get((PLAIN.title, "haproxy"))),
            ratio(row["cpu_us"], cpu.get((row["scenario"], "gateway"))),
            f"{row['rps']:,.0f}",
            f"{row['p50_us'] / 1000:.2f}",
            f"{row['p99_us'] / 1000:.2f}",
            f"{row['busy']:.0%}",
        ]


def ratio(value, base):
    return f"{value / base:.2f}" if base else ""


def scaling(rows):
    """How much more two workers do than one, as a sentence; None when that was not measured."""
    cpu = {row["scenario"]: row["cpu_us"] for row in rows if row["proxy"] == "gateway" and row["rounds"]}
    one, two = cpu.get(SCALE_ONE.title), cpu.get(SCALE_TWO.title)
    if not one or not two:
        return None
    return (
        f"scaling of two workers: {2 * one / two:.2f} × one. That is 2 × CPU per request with one worker by that with"
        " two: on two cores that the load runs on as well, requests per second show nothing"
    )


def aligned(rows):
    """For a terminal."""
    lines = [HEAD, *cells(rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = []
    for line in lines:
        left = (cell.ljust(width) for cell, width in zip(line[:2], widths[:2]))
        right = (cell.rjust(width) for cell, width in zip(line[2:], widths[2:]))
        text.append("  ".join([*left, *right]).rstrip())
    return "\n".join(text)


def markdown(rows, facts):
    """For docs/BENCHMARKS.md."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 2)]
    lines += ["| " + " | ".join(line) + " |" for line in cells(rows)]
    if scaling(rows):
        lines += ["", f"{scaling(rows)}."]
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items())]
    return "\n".join(lines) + "\n"


def facts(programs, options):
    """What somebody needs to know about the machine and the versions to judge the figures."""
    found = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "rounds": f"{options.rounds} of {options.seconds} s, {options.unseen_seconds} s for tokens never seen; medians",
    }
    ask = {"nginx": "-v", "haproxy": "-v", "envoy": "--version", "gateway": "--version", "wrk": "-v", "h2load": "--version"}
    for name, flag in ask.items():
        if name in programs:
            said = subprocess.run([programs[name], flag], capture_output=True, text=True, timeout=20, check=False)
            found[name] = version((said.stderr + said.stdout).strip(), whole=name == "gateway")
    lock = tomllib.loads((HERE / "pingora-gateway/Cargo.lock").read_text(encoding="utf-8"))
    found["pingora"] = next(p["version"] for p in lock["package"] if p["name"] == "pingora-proxy")
    return found


def version(said, whole):
    """The number in what a program says of itself; `whole`: the line, which has a revision too."""
    line = said.splitlines()[0] if said else "unknown"
    number = re.search(r"\d+\.\d+\.\d[\w.+~-]*", line.rpartition("version: ")[2])
    return line if whole or not number else number[0]


def processor():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
