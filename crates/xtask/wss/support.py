"""What the tests share: certificates, gateways that show them, programs that speak TLS, and WebSocket by hand.

The programs are pipes with TLS inside: what is written to them goes to the gateway, and what it says comes out. So the
same conversation is had with each, and each says afterwards what it has seen of the other side.
"""

import contextlib
import functools
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from coroutines import DEADLINE

# Loopback only: a proxy in the environment is none of our business.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def told(variable):
    assert variable in os.environ, f"{variable} is not set: run these tests by `cargo xtask test --only wss`"
    return os.environ[variable]


# --- certificates


def openssl(*arguments):
    subprocess.run([told("TIDEGATE_TEST_OPENSSL"), *arguments], check=True, capture_output=True, timeout=DEADLINE)


EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


class Authority:
    """`ca.pem` in a folder of its own, and beside it what the authority vouches for."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir()
        openssl("req", "-x509", *EC, "-nodes", "-days", "30", "-subj", "/CN=ca", "-keyout", self / "ca.key", "-out", self / "ca.pem")

    def __truediv__(self, file):
        return self.folder / file

    def vouch_for(self, host, file, key=EC):
        """`FILE.pem` and `FILE.key` for that host."""
        openssl(
            *["req", "-x509", "-CA", self / "ca.pem", "-CAkey", self / "ca.key", *key, "-nodes", "-days", "30"],
            *["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"],
            *["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", self / f"{file}.key", "-out", self / f"{file}.pem"],
        )


HOST, OTHER_HOST = "localhost", "eu.push.test"


@functools.cache
def authorities():
    """Ours, with a server's EC key, another's RSA key, and a device; and one that nobody trusts, with a device."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-wss-"))
    ours, strange = Authority(folder / "ours"), Authority(folder / "strange")
    ours.vouch_for(HOST, "a")
    ours.vouch_for(OTHER_HOST, "b", ["-newkey", "rsa:2048"])
    for authority in (ours, strange):
        authority.vouch_for("device-7", "device")
    return ours, strange


def clean():
    if authorities.cache_info().currsize:
        shutil.rmtree(authorities()[0].folder.parent)


# --- the gateway

CONFIG = """
[client]
anonymous = true
[api]
insecure = true
[channels]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[tls]
listen = ["127.0.0.1:0"]
certificates = [{{ chain = "{0}/a.pem", key = "{0}/a.key" }}, {{ chain = "{0}/b.pem", key = "{0}/b.key" }}]
"""


class Gateway:
    def __init__(self, folder, more):
        ours, _ = authorities()
        self.log = folder / "tidegate.log"
        config = folder / "tidegate.toml"
        config.write_text(CONFIG.format(ours.folder) + more)
        arguments = ["serve", "--io", told("TIDEGATE_TEST_DRIVER"), "--config", config, "--workers", "2"]
        arguments += ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        with open(self.log, "wb") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "env": environment}
            self.process = subprocess.Popen([told("TIDEGATE_TEST_BINARY"), *arguments], **options)
        self.port = int(self.says(r"listening public https://127\.0\.0\.1:(\d+)\n"))
        self.api = f"http://{self.says(r'listening api http://(.+)')}"
        self.url = f"wss://{HOST}:{self.port}/connection/websocket"

    def says(self, pattern, times=1):
        """What the log's line has in the pattern's group, once it was said that often."""

        def look():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            found = re.findall(pattern, self.log.read_text())
            return found[times - 1] if len(found) >= times else None

        return until(look, pattern)

    def reload(self):
        self.process.send_signal(1)
        self.says("the new configuration is in force")

    def publish(self, channel, data):
        body = json.dumps({"channel": channel, "data": data}).encode()
        request = urllib.request.Request(f"{self.api}/api/publish", body, method="POST")
        assert "error" not in json.loads(OPENER.open(request, timeout=DEADLINE).read())

    def counted(self, metric):
        """A counter of all workers."""
        page = OPENER.open(f"{self.api}/metrics", timeout=DEADLINE).read().decode()
        return sum(int(value) for value in re.findall(rf"^tidegate_{metric}_total\{{.*\}} (\d+)$", page, re.MULTILINE))


@contextlib.contextmanager
def gateway(more=""):
    """`more` goes below `[tls]`."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-wss-"))
    one = None
    try:
        one = Gateway(folder, more.replace("@", str(authorities()[0].folder)))
        yield one
        assert one.process.poll() is None, "it has ended"
    except BaseException:
        log = folder / "tidegate.log"
        print(log.read_text()[-3000:] if log.exists() else "no log")
        raise
    finally:
        if one is not None:
            one.process.kill()
            one.process.wait()
        shutil.rmtree(folder)


def until(look, what):
    """Waits for something that nothing tells us of."""
    end = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < end, f"no {what} within {DEADLINE} s"
        time.sleep(0.02)
    return found


# --- programs that speak TLS


class Program:
    """A program that passes on what it is given over TLS; what it says about TLS goes to a file or to standard error."""

    def __init__(self, arguments, notes=None):
        self.notes = notes
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen([str(it) for it in arguments], bufsize=0, **pipes)
        self.came, self.buffer, self.errors = queue.Queue(), b"", b""
        self.readers = [threading.Thread(target=self.read), threading.Thread(target=self.read_errors)]
        for reader in self.readers:
            reader.start()

    def read(self):
        while part := self.child.stdout.read(65536):
            self.came.put(part)
        self.came.put(None)

    def read_errors(self):
        while part := self.child.stderr.read(65536):
            self.errors += part

    def write(self, data):
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(data)

    def more(self):
        """What it says next is behind the rest; False at its end."""
        part = self.came.get(timeout=DEADLINE)
        self.buffer += part or b""
        return part is not None

    def take(self, count):
        while len(self.buffer) < count:
            assert self.more(), f"it ended after {self.buffer!r}: {self.errors!r}"
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def take_until(self, end):
        while end not in self.buffer:
            assert self.more(), f"it ended after {self.buffer!r}: {self.errors!r}"
        return self.take(self.buffer.index(end) + len(end))

    def end(self):
        """Waits until it has ended by itself; gives (status, all that it said)."""
        while self.more():
            pass
        status = self.child.wait(DEADLINE)
        for reader in self.readers:
            reader.join()
        notes = self.notes.read_bytes() if self.notes and self.notes.exists() else b""
        return status, (self.buffer + self.errors + notes).decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.stdin.close()
        self.child.wait()
        for reader in self.readers:
            reader.join()


REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def s_client(port, *more, host=HOST):
    """OpenSSL's. It goes on until the other side ends."""
    trust = ["-CAfile", authorities()[0] / "ca.pem", "-verify_return_error", "-verify_hostname", host]
    return [told("TIDEGATE_TEST_OPENSSL"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, *trust, "-ign_eof", *more]


def gnutls(port, notes, *more, host=HOST):
    trust = ["--x509cafile", authorities()[0] / "ca.pem", "--verify-hostname", host, "--sni-hostname", host]
    return [told("TIDEGATE_TEST_GNUTLS"), "--logfile", notes, *trust, "-p", port, *more, "127.0.0.1"]


def ask(arguments, notes=None):
    """A request through a program; (its status, all that it said)."""
    with Program(arguments, notes) as program:
        program.write(REQUEST)
        return program.end()


# --- WebSocket

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# No byte of what is masked with it is zero or ends a line: some programs read their input as text.
MASK = 0x80


def handshake(program, headers=()):
    lines = ["GET /connection/websocket HTTP/1.1", f"Host: {HOST}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", *headers]
    program.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    return program.take_until(b"\r\n\r\n")


def frame(opcode, payload):
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)] + [MASK] * 4) + bytes(byte ^ MASK for byte in payload)


def send(program, command):
    program.write(frame(1, json.dumps(command).encode()))


def receive(program):
    """(opcode, payload) of the next frame."""
    opcode, length = program.take(2)
    assert opcode & 0x80 and length < 127, "a whole frame of no great length"
    if length == 126:
        length = int.from_bytes(program.take(2))
    return opcode & 15, program.take(length)


def replies(program, count):
    """The next replies and pushes, pings left out."""
    found = []
    while len(found) < count:
        opcode, payload = receive(program)
        assert opcode == 1, (opcode, payload)
        found += [it for line in payload.splitlines() if (it := json.loads(line))]
    assert len(found) == count, found
    return found


def converse(program, at, channel):
    """Connects, subscribes, publishes, gets both that and what the API publishes, and closes."""
    assert handshake(program).startswith(b"HTTP/1.1 101 ")
    send(program, {"id": 1, "connect": {}})
    send(program, {"id": 2, "subscribe": {"channel": channel}})
    assert [(reply["id"], "error" in reply) for reply in replies(program, 2)] == [(1, False), (2, False)]
    send(program, {"id": 3, "publish": {"channel": channel, "data": "by the client"}})
    published = sorted(replies(program, 2), key=lambda it: "push" in it)
    assert published[0] == {"id": 3, "publish": {}}
    assert published[1]["push"]["pub"]["data"] == "by the client"
    long = "x" * 20_000
    for data in ("by the API", long):
        at.publish(channel, data)
        [push] = replies(program, 1)
        assert push["push"]["pub"]["data"] == data
    program.write(frame(8, b"\x03\xe8"))
    assert receive(program) == (8, b"\x03\xe8")
