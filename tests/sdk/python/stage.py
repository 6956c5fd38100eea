"""Starts what the tests talk to: the simulator, and Weir in front of it. Each is ended by its own process id."""

import collections
import hashlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parents[2]
FIXTURES = REPOSITORY / "tests/fixtures/anthropic"
START_SECONDS = 30
STOP_SECONDS = 15


def binary() -> str:
    path = os.environ.get("WEIR_BIN") or str(REPOSITORY / "target/debug/weir")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is not there: build it with `cargo build -p gateway`, or name it in WEIR_BIN")
    return path


class Server:
    """A server of ours: started, waited for until it has said all its addresses, and stopped."""

    def __init__(self, arguments: list[str], announces: dict[str, str], environment: dict[str, str] | None = None):
        self.addresses: dict[str, str] = {}
        self.output: collections.deque[str] = collections.deque(maxlen=400)
        self._announces = announces
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [binary(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(START_SECONDS) or len(self.addresses) < len(announces):
            self.stop()
            missing = ", ".join(sorted(set(announces) - set(self.addresses)))
            raise RuntimeError(f"`weir {' '.join(arguments)}` did not say: {missing}\n{''.join(self.output)}")

    def _read(self):
        for line in self._process.stdout:
            self.output.append(line)
            for name, words in self._announces.items():
                if found := re.search(rf"weir: {words} on (http://\S+)", line):
                    self.addresses.setdefault(name, found[1].rstrip("/"))
            if len(self.addresses) == len(self._announces):
                self._ready.set()
        self._ready.set()

    def stop(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Simulator(Server):
    """The provider simulator; it keeps what it was sent."""

    def __init__(self):
        super().__init__(["simulate", "--listen", "127.0.0.1:0"], {"url": "simulator"})
        self.url = self.addresses["url"]

    def requests(self) -> list[dict]:
        with urllib.request.urlopen(f"{self.url}/_sim/requests", timeout=10) as answer:
            return json.load(answer)

    def forget(self):
        reset = urllib.request.Request(f"{self.url}/_sim/requests", method="DELETE")
        urllib.request.urlopen(reset, timeout=10).read()

    def last(self, path: str) -> dict:
        """The body of the last request to `path`."""
        bodies = [request["body"] for request in self.requests() if request["path"].split("?")[0].endswith(path)]
        assert bodies, f"nothing was sent to {path}"
        return json.loads(bodies[-1])


class Player(http.server.ThreadingHTTPServer):
    """A provider that answers with the fixture of Anthropic's that the model names, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Played)
        self.bodies: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Played(http.server.BaseHTTPRequestHandler):
    """One request of a player's."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        file, kind = ("stream", "text/event-stream") if body.get("stream") else ("reply", "application/json")
        answer = (FIXTURES / body["model"] / f"{file}.native").read_bytes()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Weir(Server):
    """Weir, serving `tests/sdk/weir.yaml` in front of a simulator and a player."""

    def __init__(self, simulator: Simulator, player: Player, folder: pathlib.Path):
        config = folder / "weir.yaml"
        config.write_text(configuration(simulator.url, player.url, folder / "data"))
        secrets = {"SIM_OPENAI_KEY": "sk-simulated", "SIM_ANTHROPIC_KEY": "sk-ant-simulated"}
        super().__init__(["serve", "--config", str(config)], {"api": "api", "admin": "admin"}, secrets)
        self.url = self.addresses["api"]
        self.admin = self.addresses["admin"]


def configuration(simulator: str, player: str, data: pathlib.Path) -> str:
    text = (HERE.parent / "weir.yaml").read_text()
    text = text.replace("{sim}", simulator).replace("{player}", player).replace("{data}", str(data))
    return re.sub(r"\{hash:([^}]+)\}", lambda key: f"sha256:{hashlib.sha256(key[1].encode()).hexdigest()}", text)


def wait_until(condition, what: str, seconds: float = 10):
    """For what a server does after its answer: asks again until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
