"""The proxies under measurement: what each can do, how it is configured and started."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

CONF = Path(__file__).resolve().parent / "conf"
AUDIENCE = "https://api.bonterra.example"


@dataclass(frozen=True)
class Scenario:
    """What is asked for, and how."""

    name: str  # on the command line
    title: str  # in the tables
    tokens: str | None = None  # file of the bearer tokens; None: none is sent, and none is checked
    once: bool = False  # no token is sent twice
    http2: bool = False  # by the client; the origin speaks HTTP/1.1 always
    path: str = "/api/item"
    workers: int = 1  # of the proxy
    both_cores: bool = False  # proxy, load and origin run wherever there is room

    @property
    def checked(self):
        return self.tokens is not None


LARGE_BODY = 100 * 1024  # bytes
PLAIN = Scenario("plain", "plain hop")
KNOWN = Scenario("known", "RS256, one known token", "known.txt")
ROTATION = Scenario("rotation", "RS256, 5,000 tokens", "rotation.txt")
UNSEEN = Scenario("unseen", "RS256, tokens never seen", "unseen.txt", once=True)
H2_PLAIN = Scenario("h2-plain", "HTTP/2, plain hop", http2=True)
H2 = Scenario("h2", "HTTP/2, one known token", "known.txt", http2=True)
LARGE_PLAIN = Scenario("large-plain", "100 KiB, plain hop", path="/api/large")
LARGE = Scenario("large", "100 KiB, one known token", "known.txt", path="/api/large")
SCALE_ONE = Scenario("scale", "both cores, 1 worker", "known.txt", both_cores=True)
SCALE_TWO = Scenario("scale", "both cores, 2 workers", "known.txt", both_cores=True, workers=2)
SCENARIOS = [PLAIN, KNOWN, ROTATION, UNSEEN, H2_PLAIN, H2, LARGE_PLAIN, LARGE, SCALE_ONE, SCALE_TWO]


@dataclass
class Setting:
    """Everything that configurations and command lines refer to."""

    directory: Path
    origin_port: int
    issuer_port: int
    proxy_port: int
    admin_port: int
    http2_port: int  # the proxy's for HTTP/2 by prior knowledge; some speak nothing else there
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
            "HTTP2": self.http2_port,
            "AUDIENCE": AUDIENCE,
            **more,
        }
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
        return text


@dataclass
class Proxy:
    """`command(setting, scenario)` writes the configuration and returns the command line."""

    name: str
    scenarios: tuple
    command: Callable
    cannot: tuple = ()  # scenarios that have a row without figures


def gateway(setting, scenario):
    name = "gateway-rs256.toml" if scenario.checked else "gateway-plain.toml"
    config = setting.write(name, WORKERS=scenario.workers)
    return [setting.programs["gateway"], "run", "-c", config]


def nginx(setting, _scenario):
    return [setting.programs["nginx"], "-p", str(setting.directory), "-c", setting.write("nginx-plain.conf")]


def haproxy(setting, scenario):
    config = setting.write("haproxy-rs256.cfg" if scenario.checked else "haproxy-plain.cfg")
    return [setting.programs["haproxy"], "-db", "-q", "-f", config]


def envoy(setting, scenario, cache=""):
    jwt = setting.fill((CONF / "envoy-jwt.yaml").read_text(), JWT_CACHE=cache) if scenario.checked else ""
    config = setting.write("envoy.yaml", JWT_FILTER=jwt.rstrip())
    return [setting.programs["envoy"], "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def envoy_with_cache(setting, scenario):
    return envoy(setting, scenario, "jwt_cache_config: { jwt_cache_size: 100000 }")


def pingora(setting, scenario):
    command = [setting.programs["pingora"], "--listen", f"127.0.0.1:{setting.proxy_port}"]
    command += ["--origin", f"127.0.0.1:{setting.origin_port}"]
    if scenario.checked:
        command += ["--public-key", str(setting.directory / "public.pem")]
        command += ["--issuer", setting.issuer_url, "--audience", AUDIENCE]
    return command


TOKENS = (KNOWN, ROTATION, UNSEEN)
PROXIES = [
    Proxy("gateway", tuple(SCENARIOS), gateway),
    Proxy("nginx", (PLAIN, H2_PLAIN, LARGE_PLAIN), nginx, cannot=(H2, LARGE)),
    Proxy("haproxy", (PLAIN, *TOKENS, H2_PLAIN, H2, LARGE_PLAIN, LARGE), haproxy),
    Proxy("envoy", (PLAIN, *TOKENS, H2_PLAIN, H2, LARGE_PLAIN, LARGE), envoy),
    Proxy("envoy-cache", (*TOKENS, H2, LARGE), envoy_with_cache),
    Proxy("pingora", (PLAIN, *TOKENS, LARGE_PLAIN, LARGE), pingora, cannot=(H2_PLAIN, H2)),
]
