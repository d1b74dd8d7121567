"""The proxies under measurement: what each can do, how it is configured and started."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

CONF = Path(__file__).resolve().parent / "conf"
AUDIENCE = "https://api.bonterra.example"

PLAIN = "plain hop"
KNOWN = "RS256, one known token"
ROTATION = "RS256, 5,000 tokens"
UNSEEN = "RS256, tokens never seen"
SCENARIOS = {"plain": PLAIN, "known": KNOWN, "rotation": ROTATION, "unseen": UNSEEN}


@dataclass
class Setting:
    """Everything that configurations and command lines refer to."""

    directory: Path
    origin_port: int
    issuer_port: int
    proxy_port: int
    admin_port: int
    programs: dict  # name -> path

    @property
    def issuer_url(self):
        return f"http://127.0.0.1:{self.issuer_port}/"

    def write(self, name, as_name=None, **more):
        """Fills in the file `name` of conf/ and returns where the result was written."""
        path = self.directory / (as_name or name)
        path.write_text(self.fill((CONF / name).read_text(), **more))
        return str(path)

    def fill(self, text, **more):
        values = {
            "DIR": self.directory,
            "ORIGIN": self.origin_port,
            "ISSUER_URL": self.issuer_url,
            "ISSUER": self.issuer_port,
            "PROXY": self.proxy_port,
            "ADMIN": self.admin_port,
            "AUDIENCE": AUDIENCE,
            **more,
        }
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
        return text


@dataclass
class Proxy:
    """`command(setting, checked)` writes the configuration and returns the command line; `checked`: with the JWT check."""

    name: str
    scenarios: tuple
    command: Callable


def gateway(setting, checked):
    config = setting.write("gateway-rs256.toml" if checked else "gateway-plain.toml")
    return [setting.programs["gateway"], "run", "-c", config]


def nginx(setting, _checked):
    return [setting.programs["nginx"], "-p", str(setting.directory), "-c", setting.write("nginx-plain.conf")]


def haproxy(setting, checked):
    config = setting.write("haproxy-rs256.cfg" if checked else "haproxy-plain.cfg")
    return [setting.programs["haproxy"], "-db", "-q", "-f", config]


def envoy(setting, checked, cache=""):
    jwt = setting.fill((CONF / "envoy-jwt.yaml").read_text(), JWT_CACHE=cache) if checked else ""
    config = setting.write("envoy.yaml", JWT_FILTER=jwt.rstrip())
    return [setting.programs["envoy"], "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def envoy_with_cache(setting, checked):
    return envoy(setting, checked, "jwt_cache_config: { jwt_cache_size: 100000 }")


def pingora(setting, checked):
    command = [setting.programs["pingora"], "--listen", f"127.0.0.1:{setting.proxy_port}"]
    command += ["--origin", f"127.0.0.1:{setting.origin_port}"]
    if checked:
        command += ["--public-key", str(setting.directory / "public.pem")]
        command += ["--issuer", setting.issuer_url, "--audience", AUDIENCE]
    return command


CHECKED = (KNOWN, ROTATION, UNSEEN)
PROXIES = [
    Proxy("gateway", (PLAIN, *CHECKED), gateway),
    Proxy("nginx", (PLAIN,), nginx),
    Proxy("haproxy", (PLAIN, *CHECKED), haproxy),
    Proxy("envoy", (PLAIN, *CHECKED), envoy),
    Proxy("envoy-cache", CHECKED, envoy_with_cache),
    Proxy("pingora", (PLAIN, *CHECKED), pingora),
]
