#!/usr/bin/env python3
"""Measures the gateway beside other proxies: same origin, same load, one core each, in one run. See README.md.

    benches/peers/run.py [--rounds 3] [--seconds 4] [--only gateway,haproxy] [--scenarios plain,known,h2,large,scale]

GATEWAY_BIN names the gateway to measure; without it this repository is built with the profile `dist`.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import install
import measure
import report
from install import say
from proxies import AUDIENCE, LARGE_BODY, PROXIES, SCENARIOS, Setting

ROTATION_TOKENS = 5000
TOKENS_GOOD_FOR = 12 * 60 * 60  # seconds; they live for a day


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, medians of which are printed (3)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a round (4)")
    parser.add_argument("--unseen-seconds", type=int, default=3, help="length of a round with tokens never seen (3)")
    parser.add_argument("--unseen-tokens", type=int, default=100_000, help="how many of those are signed (100000)")
    parser.add_argument("--only", type=names_of([p.name for p in PROXIES]), help="proxies, comma-separated (all)")
    parser.add_argument("--scenarios", type=names_of([s.name for s in SCENARIOS]), help="scenarios, comma-separated (all)")
    parser.add_argument("--port", type=int, default=18400, help="first of five ports on loopback (18400)")
    parser.add_argument("--dir", type=Path, default=install.REPOSITORY / "target/peers", help="for files (target/peers)")
    return parser.parse_args()


def names_of(known):
    def parse(text):
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of {', '.join(known)}")
        return names

    return parse


def prepare(opts, proxies):
    """Installs and builds what takes part; returns the setting with the tokens made."""
    opts.dir = opts.dir.resolve()
    opts.dir.mkdir(parents=True, exist_ok=True)
    names = {proxy.name for proxy in proxies}
    debian = {"nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "cmake": "cmake", "taskset": "util-linux"}
    if "haproxy" in names:
        debian["haproxy"] = "haproxy"
    install.ensure_debian(debian)

    programs = {name: install.find(name) for name in ("nginx", "wrk", "h2load", "haproxy") if install.find(name)}
    built = install.pingora_package(opts.dir)
    programs["pingora"] = str(built / "pingora-gateway")
    programs["tokens"] = str(built / "tokens")
    if names & {"envoy", "envoy-cache"}:
        programs["envoy"] = install.envoy(opts.dir)
    if "gateway" in names:
        programs["gateway"] = install.gateway()

    ports = range(opts.port, opts.port + 5)
    setting = Setting(opts.dir, *ports, programs)
    for port in ports:
        measure.ensure_free(port)
    make_tokens(setting, opts)
    (opts.dir / "large.bin").write_bytes(b"x" * LARGE_BODY)
    return setting


def make_tokens(setting, opts):
    """Signs the tokens unless the last run's are of the same kind and still good."""
    wanted = {"issuer": setting.issuer_url, "unseen": opts.unseen_tokens}
    note = setting.directory / "tokens.json"
    with contextlib.suppress(OSError, ValueError):
        young = time.time() - note.stat().st_mtime < TOKENS_GOOD_FOR
        if young and json.loads(note.read_text(encoding="utf-8")) == wanted:
            return
    say(f"signing {opts.unseen_tokens} tokens")
    note.unlink(missing_ok=True)
    command = [setting.programs["tokens"], "--dir", setting.directory, "--issuer", setting.issuer_url]
    command += ["--audience", AUDIENCE, "--rotation", ROTATION_TOKENS, "--unseen", opts.unseen_tokens]
    subprocess.run([str(part) for part in command], check=True)
    note.write_text(json.dumps(wanted), encoding="utf-8")


def figures_of(setting, opts, proxy, scenario):
    """One round of one proxy, started anew so that nothing is left of the last: figures, or a Failure."""
    log = setting.directory / f"{proxy.name}.out"
    known = measure.first_line(setting.directory / "known.txt")
    seconds = opts.unseen_seconds if scenario.once else opts.seconds
    while seconds:
        measure.ensure_free(setting.proxy_port)
        core = measure.BOTH_CORES if scenario.both_cores else measure.PROXY_CORE
        with measure.running(proxy.command(setting, scenario), core, log) as process:
            headers = measure.bearer(known) if scenario.checked else {}
            measure.wait_for(process, setting.proxy_port, "/api/item", headers, log)
            check(setting, scenario)
            found = measure.one_round(setting, scenario, process, seconds)
        if found:
            return found
        seconds -= 1  # faster than there are tokens: a shorter round then
    raise measure.Failure("the tokens do not last for a second, give more with --unseen-tokens")


def check(setting, scenario):
    """That the proxy does the job of the scenario."""
    (measure.check_tokens if scenario.checked else measure.check_plain)(setting)
    if scenario.http2:
        measure.check_http2(setting, scenario)
    if scenario.path == "/api/large":
        measure.check_large(setting, scenario)


def run_rounds(setting, opts, proxies, scenarios):
    """Every proxy in every scenario once per round; one that fails is left out from then on, with its reason."""
    rounds = collections.defaultdict(list)
    failures = {}
    for number in range(opts.rounds):
        for scenario in scenarios:
            for proxy in proxies:
                key = (scenario.title, proxy.name)
                if scenario in proxy.cannot:
                    rounds[key] = []
                if scenario not in proxy.scenarios or key in failures:
                    continue
                try:
                    found = figures_of(setting, opts, proxy, scenario)
                except (measure.Failure, OSError, subprocess.TimeoutExpired) as failure:
                    failures[key] = str(failure)
                    say(f"round {number + 1}  {scenario.title}, {proxy.name}: NOT MEASURED, {failure}")
                    continue
                rounds[key].append(found)
                say(f"round {number + 1}  {scenario.title}, {proxy.name}: {found['cpu_us']:.1f} µs, {found['rps']:,.0f}/s")
    for key in failures:
        rounds.pop(key, None)
    return rounds, failures


def main():
    opts = options()
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the proxy, one for load and origin")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    proxies = [proxy for proxy in PROXIES if not opts.only or proxy.name in opts.only]
    scenarios = [one for one in SCENARIOS if not opts.scenarios or one.name in opts.scenarios]
    try:
        setting = prepare(opts, proxies)
    except measure.Failure as failure:
        sys.exit(str(failure))

    origin = [setting.programs["nginx"], "-p", str(opts.dir), "-c", setting.write("origin.conf")]
    log = opts.dir / "origin.out"
    with measure.running(origin, measure.LOAD_CORE, log) as process:
        measure.wait_for(process, setting.origin_port, "/api/item", {}, log)
        rounds, failures = run_rounds(setting, opts, proxies, scenarios)

    rows = report.medians(rounds)
    facts = report.facts(setting.programs, opts)
    results = {"facts": facts, "rows": rows, "failures": {" / ".join(key): why for key, why in failures.items()}}
    (opts.dir / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (opts.dir / "results.md").write_text(report.markdown(rows, facts), encoding="utf-8")
    print(report.aligned(rows))
    if report.scaling(rows):
        print(report.scaling(rows))
    for (scenario, name), why in failures.items():
        print(f"not measured: {name}, {scenario}: {why}")
    say(f"written: {opts.dir}/results.json and results.md")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
