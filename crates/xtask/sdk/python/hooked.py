"""A backend that answers webhooks as a test wants it, and a gateway of its own that asks it."""

import asyncio
import hashlib
import hmac
import json
import os
import re
import socket
import threading
import time
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from coroutines import DEADLINE
from support import OPENER, Gateway

EVENTS = ["connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc"]
CONFIG = Path(__file__).parent.parent / "hooked.toml"
KEY = b"the key that these tests check with it"


class Backend:
    """`answers` is what it says by event, from the request: an object, (status, body), or None for no answer at all."""

    def __init__(self):
        self.answers, self.requests, self.forged = {}, [], []
        self.port, self.server = 0, None

    def start(self):
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                backend.sockets.append(self.connection)

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"]))
                backend.check(self.headers.get("X-Tidegate-Signature", ""), text)
                status, answer = backend.answer(self.path[1:], json.loads(text))
                if status is None:
                    backend.held.wait(DEADLINE)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.held, self.sockets = threading.Event(), []
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.held.set()
        self.server.shutdown()
        self.server.server_close()
        for kept in self.sockets:
            with suppress(OSError):
                kept.shutdown(socket.SHUT_RDWR)

    def check(self, signature, text):
        fits = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", signature)
        if fits is not None:
            stamp, mac = fits.groups()
            expected = hmac.new(KEY, stamp.encode() + b"." + text, hashlib.sha256).hexdigest()
            if hmac.compare_digest(mac, expected) and abs(time.time() - int(stamp)) < 60:
                return
        self.forged.append(signature)

    def answer(self, event, body):
        """(status, body); (None, None): none."""
        if event == "notices":
            return 200, b""
        self.requests.append((event, body))
        answer = self.answers.get(event, lambda _: None)(body)
        if answer is None:
            return None, None
        if isinstance(answer, tuple):
            return answer
        return 200, json.dumps(answer).encode()

    def of(self, event):
        return [body for asked, body in self.requests if asked == event]


class Hooked(Gateway):
    """A gateway that asks a backend, at the addresses that it has printed."""

    def __init__(self, public, api, form):
        self.kind, self.form, self.url, self.api = "hooked", form, public, api
        self.websocket = f"{public.replace('http', 'ws', 1)}/connection/websocket"

    async def metric(self, name):
        def read():
            with OPENER.open(f"{self.api}/metrics", timeout=DEADLINE) as answer:
                return answer.read().decode()

        lines = (await asyncio.to_thread(read)).splitlines()
        return next(float(line.split(" ")[-1]) for line in lines if line.startswith(name))


@asynccontextmanager
async def hooked(form):
    """A backend that is there, and a gateway that asks it about everything."""
    backend = Backend()
    backend.start()
    base = f"http://127.0.0.1:{backend.port}"
    urls = {f"TIDEGATE_WEBHOOKS__{event.upper()}": f"{base}/{event}" for event in [*EVENTS, "notices"]}
    binary, driver = os.environ["TIDEGATE_TEST_BINARY"], os.environ["TIDEGATE_TEST_DRIVER"]
    arguments = ["serve", "--io", driver, "--config", str(CONFIG)]
    arguments += ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        binary, *arguments, env={"PATH": os.environ["PATH"], **urls}, stderr=asyncio.subprocess.PIPE
    )
    addresses = {}

    async def follow():
        async for line in process.stderr:
            if said := re.match(rb"listening (public|api) (http\S+)", line):
                addresses[said[1].decode()] = said[2].decode()

    async def listens():
        while len(addresses) < 2:
            assert process.returncode is None, "the gateway has ended"
            await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    try:
        await asyncio.wait_for(listens(), DEADLINE)
        yield backend, Hooked(addresses["public"], addresses["api"], form)
        assert process.returncode is None, "the gateway has ended"
        assert backend.forged == [], "every request is signed"
    finally:
        process.kill()
        await process.wait()
        await following
        backend.stop()
