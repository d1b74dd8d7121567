"""Starts a proxy on its core, makes sure that it does the job, loads it and reads what it cost."""

import contextlib
import dataclasses
import http.client
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from proxies import LARGE_BODY

HERE = Path(__file__).resolve().parent
PROXY_CORE = "0"
LOAD_CORE = "1"
BOTH_CORES = "0,1"
CONNECTIONS = 64
HTTP2_CONNECTIONS = 8  # with as many streams together as the others have connections
START_TIMEOUT = 20  # seconds until a started program must answer
WARM_UP = 1  # seconds


class Failure(Exception):
    """A proxy that cannot be measured, and why."""


@contextlib.contextmanager
def running(command, core, log):
    """Runs `command` on one core; whatever happens it has ended afterwards. Kills: nothing here needs a drain."""
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(["taskset", "-c", core, *command], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ensure_free(port):
    """Fails when something else listens on the port: it would be measured instead."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Failure(f"port {port} is taken, choose others with --port")


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def wait_for(process, port, path, headers, log):
    """Waits until the path answers 200."""
    deadline = time.monotonic() + START_TIMEOUT
    last = "nothing"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure(f"ended with {process.returncode}, see {log}")
        try:
            status, _ = get(port, path, headers)
            if status == 200:
                return
            last = f"status {status}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        time.sleep(0.05)
    raise Failure(f"not serving after {START_TIMEOUT} s ({last}), see {log}")


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def check_plain(setting):
    """The answer must be the origin's, and the origin must learn who asked."""
    through, direct = get(setting.proxy_port, "/api/item"), get(setting.origin_port, "/api/item")
    if through != direct:
        raise Failure(f"the origin says {direct}, through the proxy it is {through}")
    _, echo = get(setting.proxy_port, "/api/echo")
    check_forwarded(echo)


def check_tokens(setting):
    """A good token's claims must arrive in place of forged ones; no other token may come through."""
    good = first_line(setting.directory / "known.txt")
    expired = first_line(setting.directory / "expired.txt")
    header, payload, signature = good.split(".")
    flipped = signature[:100] + ("A" if signature[100] != "A" else "B") + signature[101:]
    other = first_line(setting.directory / "rotation.txt").split(".")
    bad = {
        "no token": {},
        "an expired token": bearer(expired),
        "a tampered signature": bearer(f"{header}.{payload}.{flipped}"),
        "another token's claims": bearer(f"{header}.{other[1]}.{signature}"),
    }
    for what, headers in bad.items():
        status, _ = get(setting.proxy_port, "/api/item", headers)
        if status not in (401, 403):
            raise Failure(f"answers {status} to {what}")

    forged = {"X-Bonterra-Auth-Id": "forged", "X-Bonterra-Is-Grants": "forged"}
    status, echo = get(setting.proxy_port, "/api/echo", {**forged, **bearer(good)})
    if status != 200:
        raise Failure(f"answers {status} to a good token")
    name = "known000000000"
    for part in (f"auth_id=auth0|{name} ", "grants=true ", f"sub={name}@clients ", "scope=read:grants"):
        expect_in(echo, part)
    check_forwarded(echo)
    if "forged" in echo:
        raise Failure(f"a forged claim header arrived: {echo.strip()}")


def expect_in(echo, part):
    if part not in echo:
        raise Failure(f"the origin did not get {part.strip()!r}, it got {echo.strip()!r}")


def check_forwarded(echo):
    """Some client address must have come; Envoy names the machine's own for a client on loopback."""
    if echo.rstrip().endswith("forwarded="):
        raise Failure("the origin did not get X-Forwarded-For")


def first_line(path):
    with open(path, encoding="ascii") as lines:
        return lines.readline().strip()


def cpu_seconds(pid):
    """User and system time of a process and its children so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return own + sum(cpu_seconds(child) for child in children)


def load(setting, scenario, seconds):
    """Loads the proxy; returns the counts, or None when the tokens that may be sent once did not suffice."""
    counts = (http2_load if scenario.http2 else http1_load)(setting, scenario, seconds)
    if counts and (counts["refused"] or counts["socket_errors"] or not counts["requests"]):
        raise Failure(f"not every request succeeded: {counts}")
    return counts


def http1_load(setting, scenario, seconds):
    """By wrk. Both cores: two threads of it, and twice the connections, so that two workers have what one has."""
    cores, threads = (BOTH_CORES, 2) if scenario.both_cores else (LOAD_CORE, 1)
    command = ["taskset", "-c", cores, setting.programs["wrk"], f"-t{threads}", f"-c{CONNECTIONS * threads}"]
    command += [f"-d{seconds}s", "-s", str(HERE / "load.lua")]
    command += [f"http://127.0.0.1:{setting.proxy_port}{scenario.path}", "--"]
    if scenario.tokens:
        command += [str(setting.directory / scenario.tokens)] + (["once"] if scenario.once else [])
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode != 0 or result is None:
        raise Failure(f"wrk failed: {done.stdout} {done.stderr}")
    if "TOKENS RAN OUT" in done.stderr:
        return None
    return json.loads(result.removeprefix("RESULT "))


def http2_load(setting, scenario, seconds):
    """By h2load, which tells statuses and how long each request took."""
    command = ["taskset", "-c", LOAD_CORE, setting.programs["h2load"], "-t1", f"-c{HTTP2_CONNECTIONS}"]
    command += [f"-m{CONNECTIONS // HTTP2_CONNECTIONS}", f"-D{seconds}"]
    done, times = h2load(setting, command, scenario)
    counts = re.search(r"requests: .* (\d+) done, .* (\d+) errored, (\d+) timeout", done)
    statuses = re.search(r"status codes: (\d+) 2xx", done)
    if not counts or not statuses or not times:
        raise Failure(f"h2load failed: {done}")
    requests, errored, timeout = map(int, counts.groups())
    times.sort()
    return {
        "requests": requests,
        "microseconds": seconds * 1_000_000,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "socket_errors": errored + timeout,
        "refused": requests - int(statuses[1]),
    }


def h2load(setting, command, scenario):
    """What it says, and the microseconds of each request."""
    log = setting.directory / "h2load.log"
    log.unlink(missing_ok=True)
    command = [*command, f"--log-file={log}"]
    if scenario.tokens:
        command += ["-H", f"authorization: Bearer {first_line(setting.directory / scenario.tokens)}"]
    command += [f"http://127.0.0.1:{setting.http2_port}{scenario.path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    times = []
    with contextlib.suppress(OSError), open(log, encoding="ascii") as lines:
        times = [int(line.split()[2]) for line in lines]
    return done.stdout + done.stderr, times


def check_http2(setting, scenario):
    """HTTP/2 must be checked like HTTP/1.1, which all the other checks came by."""
    bare = dataclasses.replace(scenario, tokens=None)
    done, _ = h2load(setting, [setting.programs["h2load"], "-t1", "-c1", "-n10"], bare)
    wanted = "10 4xx" if scenario.checked else "10 2xx"
    if wanted not in done:
        raise Failure(f"by HTTP/2 without a token, {wanted} were expected: {done}")


def check_large(setting, scenario):
    headers = bearer(first_line(setting.directory / scenario.tokens)) if scenario.tokens else {}
    status, body = get(setting.proxy_port, scenario.path, headers)
    if status != 200 or len(body) != LARGE_BODY:
        raise Failure(f"answers {status} and {len(body)} bytes where {LARGE_BODY} were expected")


def one_round(setting, scenario, process, seconds):
    """Warms up, loads for `seconds`, and returns the figures of the round; None when the tokens ran out."""
    load(setting, dataclasses.replace(scenario, tokens="known.txt", once=False) if scenario.once else scenario, WARM_UP)
    before = cpu_seconds(process.pid)
    counts = load(setting, scenario, seconds)
    if counts is None:
        return None
    cpu = cpu_seconds(process.pid) - before
    return {
        "cpu_us": cpu * 1e6 / counts["requests"],
        "rps": counts["requests"] * 1e6 / counts["microseconds"],
        "p50_us": counts["p50"],
        "p99_us": counts["p99"],
        "busy": cpu * 1e6 / counts["microseconds"],
    }
