"""What the tests share: real gateways, real proxies with the shipped files, a client, and an upstream that only looks.

Each proxy is given a listening socket that we have bound to a port of the kernel's choice. So there is no port that
somebody else could take meanwhile, and no moment in which it refuses: what comes early waits in the socket's queue.
"""

import asyncio
import contextlib
import functools
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from coroutines import DEADLINE

DEPLOY = Path(__file__).parents[3] / "deploy"
# The tests' ping interval is that much shorter than the shipped 25 s, and so are the proxies' timeouts.
FACTOR = 12.5
# Loopback only: a proxy in the environment is none of our business.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
PROXIES = tuple(FILES)


def told(variable):
    assert variable in os.environ, f"{variable} is not set: run these tests by `cargo xtask test --only proxies`"
    return os.environ[variable]


async def until(condition, what, within=DEADLINE):
    """Waits for something that nothing tells us of; gives what `condition` gave."""
    end = asyncio.get_running_loop().time() + within
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < end, f"no {what} within {within} s"
        await asyncio.sleep(0.02)
    return found


class Process:
    """A program whose output goes to a file, which is shown when it does not end as it should."""

    def __init__(self, arguments, log, **options):
        self.log = Path(log)
        with open(log, "wb") as file:
            self.child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, **options
            )

    def signal(self, which):
        self.child.send_signal(which)

    def children(self):
        """Processes that it has started and that still run."""
        with contextlib.suppress(FileNotFoundError):
            return set(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split())
        return set()

    def said(self):
        return self.log.read_text(errors="replace")

    def ended(self):
        return self.child.poll() is not None

    async def stop(self, politely=True):
        """Politely: by a signal that a master process passes on to its children."""
        # Beside the loop: nginx takes seconds now and then, and clients that other tests wait for have to answer pings.
        await asyncio.to_thread(self.end, politely)

    def end(self, politely):
        if politely and not self.ended():
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(DEADLINE)
        self.child.kill()
        self.child.wait()


# --- the gateway

# On 127.0.0.1, behind a proxy that passes on the Host of its clients.
HOST = "push.example.com"
GATEWAY = f"""
[public]
hosts = ["{HOST}"]
[api]
insecure = true
[client]
anonymous = true
insecure = true
ping_interval = "{int(25 / FACTOR)}s"
pong_timeout = "1500ms"
[drain]
time = "1s"
"""


class Gateway:
    """A real one; its public address, and its API."""

    def __init__(self, folder, extra):
        config = folder / "tidegate.toml"
        config.write_text(GATEWAY)
        listen = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        self.process = Process(
            [told("TIDEGATE_TEST_BINARY"), "serve", "--config", config, *listen],
            folder / "tidegate.log",
            env={**environment, "TIDEGATE_WORKERS__COUNT": "2", **extra},
        )

    async def listening(self):
        def address(kind):
            assert not self.process.ended(), self.process.said()
            return re.search(rf"listening {kind} http://(\S+)\n", self.process.said())

        self.public = (await until(lambda: address("public"), "public address"))[1]
        self.api = f"http://{(await until(lambda: address('api'), 'API address'))[1]}"

    async def call(self, method, body):
        request = urllib.request.Request(f"{self.api}/api/{method}", json.dumps(body).encode(), method="POST")
        answer = json.loads(await asyncio.to_thread(lambda: OPENER.open(request, timeout=DEADLINE).read()))
        assert "error" not in answer, answer
        return answer["result"]

    async def publish(self, channel, data):
        await self.call("publish", {"channel": channel, "data": data})

    async def counted(self, metric):
        """A counter of all workers."""
        page = await asyncio.to_thread(lambda: OPENER.open(f"{self.api}/metrics", timeout=DEADLINE).read().decode())
        return sum(int(value) for value in re.findall(rf"^tidegate_{metric}_total\{{.*\}} (\d+)$", page, re.MULTILINE))

    async def clients(self):
        return (await self.call("info", {}))["nodes"][0]["num_clients"]


@contextlib.asynccontextmanager
async def gateway(**extra):
    """`extra` are variables of its environment."""
    with temporary_folder() as folder:
        one = Gateway(folder, extra)
        try:
            await one.listening()
            yield one
        except BaseException:
            print(one.process.said()[-3000:])
            raise
        finally:
            await one.process.stop(politely=False)


@contextlib.contextmanager
def temporary_folder():
    # Not below target/, whose path may be too long for a Unix socket.
    folder = Path(tempfile.mkdtemp(prefix="tidegate-proxy-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# --- the proxies


def replaced(text, table):
    """Each key replaced by its value; one that is not there exactly once means that the shipped file has changed."""
    for old, new in table.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


# What bounds the silence on a client's connection.
SILENCE = {
    "nginx": r"^\s*(?:proxy_read_timeout|proxy_send_timeout)\s+(\d+)s;$",
    "haproxy": r"^\s*timeout (?:tunnel|client|server)\s+(\d+)s$",
}


def with_silence(text, name, milliseconds):
    """The file with its longest silences turned into what `milliseconds` makes of their seconds."""
    return re.sub(
        SILENCE[name],
        lambda line: line[0].replace(f"{line[1]}s", f"{milliseconds(int(line[1]))}ms"),
        text,
        flags=re.MULTILINE,
    )


def nginx_file(folder, shipped, port, upstreams):
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "\n".join(f"{place}_temp_path {folder}/{place};" for place in places)
    table = {
        "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else "",
        "worker_processes auto;": "worker_processes 2;",
        "worker_rlimit_nofile 70000;": "",
        "worker_connections 65536;": "worker_connections 256;",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx/error.log": f"{folder}/error.log",
        "/var/log/nginx/access.log": f"{folder}/access.log",
        "http {\n": f"http {{\n{own}\n",
        "    listen 443 ssl backlog=16384;": f"    listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/tidegate.crt": f"{folder}/certificate.pem",
        "/etc/nginx/tidegate.key": f"{folder}/key.pem",
        "server 10.0.0.11:8000": f"server {upstreams[0]}",
        "server 10.0.0.12:8000": f"server {upstreams[1]}",
    }
    return replaced(shipped, table)


def haproxy_file(folder, shipped, fd, upstreams):
    own = f"    user {pwd.getpwuid(os.getuid()).pw_name}" if os.getuid() == 0 else ""
    table = {
        "    user haproxy": own,
        "    group haproxy": "",
        "maxconn 100000": "maxconn 256",
        "    stats socket /run/haproxy/admin.sock": f"    stats socket {folder}/admin.sock",
        "    bind :443 ssl crt /etc/haproxy/tidegate.pem": f"    bind fd@{fd} ssl crt {folder}/both.pem",
        "server gateway1 10.0.0.11:8000": f"server gateway1 {upstreams[0]}",
        "server gateway2 10.0.0.12:8000": f"server gateway2 {upstreams[1]}",
    }
    return replaced(shipped, table)


# What makes a proxy with the shipped file take the word of whoever is in front of it for who the client is.
INTRODUCED = {
    "nginx": (" ssl;\n", " ssl proxy_protocol;\nset_real_ip_from 127.0.0.1;\nreal_ip_header proxy_protocol;\n"),
    "haproxy": (" alpn http/1.1 backlog 16384\n    #", " alpn http/1.1 backlog 16384 accept-proxy\n    #"),
}

# Proxies that read nothing of what they pass on, and say in front of it for whom: (program, what it says).
PASSING = {
    "nginx": """
load_module {module};
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
stream {{
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        set_real_ip_from 127.0.0.1;
        proxy_pass {upstream};
        proxy_protocol on;
    }}
}}
""",
    "haproxy": """
global
    {user}
    stats socket {folder}/admin.sock
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
backend tidegate
    server gateway1 {upstream} {says} check inter 100ms
frontend clients
    bind fd@{fd} accept-proxy
    default_backend tidegate
""",
}


def passing_file(name, folder, says, port, fd, upstream):
    """A file for a proxy that passes bytes on, and says for whom."""
    module = told("TIDEGATE_TEST_NGINX_STREAM")  # empty where it is built in
    end = {"nginx": ";", "haproxy": ""}[name]
    user = f"user {pwd.getpwuid(os.getuid()).pw_name}{end}" if os.getuid() == 0 else ""
    text = PASSING[name] if module else PASSING[name].replace("load_module {module};\n", "")
    return text.format(module=module, user=user, folder=folder, port=port, fd=fd, upstream=upstream, says=says)


class Proxy:
    """nginx or HAProxy, in front of two upstreams (or of one, twice): with the shipped file, or with one that passes bytes on.

    `introduced`: clients are introduced to it by a header of the PROXY protocol, as by a load balancer in front.
    """

    def __init__(self, name, folder, upstreams, milliseconds, introduced=False, says=None):
        self.name, self.folder = name, folder
        upstreams = (upstreams * 2)[:2]
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port, fd = listener.getsockname()[1], listener.fileno()
        self.host = f"{HOST}:{self.port}"
        self.introduced, self.has_tls = introduced, says is None
        certify(folder)
        shipped = with_silence((DEPLOY / FILES[name]).read_text(), name, milliseconds)
        file, program, environment = folder / "proxy.conf", told(f"TIDEGATE_TEST_{name.upper()}"), dict(os.environ)
        if says is not None:
            text = passing_file(name, folder, says, self.port, fd, upstreams[0])
        elif name == "nginx":
            text = nginx_file(folder, shipped, self.port, upstreams)
        else:
            text = haproxy_file(folder, shipped, fd, upstreams)
        if introduced and says is None:
            text = replaced(text, dict([INTRODUCED[name]]))
        file.write_text(text)
        if name == "nginx":
            command = [program, "-p", folder, "-c", file, "-e", folder / "error.log", "-g", "daemon off;"]
            environment["NGINX"] = f"{fd};"
        else:
            command = [program, "-W", "-db", "-f", file]
        self.process = Process(command, folder / "proxy.log", pass_fds=[fd], env=environment)
        listener.close()

    async def reload(self):
        """Takes the file again, as `systemctl reload` does; over when the old processes take no more clients."""
        before = await until(self.process.children, "process")
        for _ in range(DEADLINE):
            self.process.signal({"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}[self.name])
            # HAProxy's master begins a second life once it has started the others; a signal between the two is lost.
            with contextlib.suppress(AssertionError):
                await until(lambda: self.process.children() - before, "new process", within=1)
                break
        await until(lambda: self.process.children() - before and self.let_go(before), "change of processes")

    def let_go(self, processes):
        """Whether those of `processes` that still run take no more clients."""
        if self.name == "haproxy":
            return "Proxy clients stopped" in self.process.said()
        for process in processes & self.process.children():
            with contextlib.suppress(FileNotFoundError):
                if b"shutting down" not in Path(f"/proc/{process}/cmdline").read_bytes():
                    return False
        return True

    def states(self):
        """What HAProxy thinks of each gateway."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(DEADLINE)
            line.connect(str(self.folder / "admin.sock"))
            line.sendall(b"show stat tidegate 4 -1 json\n")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        rows = [{field["field"]["name"]: field["value"]["value"] for field in row} for row in json.loads(answer)]
        return {row["svname"]: row["status"] for row in rows}

    def complaint(self):
        logs = [file for file in (self.folder / "proxy.log", self.folder / "error.log") if file.exists()]
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-3000:]}" for file in logs)


@contextlib.asynccontextmanager
async def proxy(name, *upstreams, milliseconds=lambda seconds: int(1000 * seconds / FACTOR), **how):
    """`milliseconds` is what the shipped seconds of silence become."""
    with temporary_folder() as folder:
        one = Proxy(name, folder, list(upstreams), milliseconds, **how)
        try:
            yield one
        except BaseException:
            print(one.complaint())
            raise
        finally:
            await one.process.stop()


@functools.cache
def certificate():
    """(key, certificate) for HOST, made once."""
    with temporary_folder() as folder:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            [told("TIDEGATE_TEST_OPENSSL"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
            + ["-nodes", "-days", "1", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
            + ["-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        return key.read_text(), certificate.read_text()


def certify(folder):
    key, public = certificate()
    for name, text in (("key.pem", key), ("certificate.pem", public), ("both.pem", public + key)):
        (folder / name).write_text(text)


def trust():
    return ssl.create_default_context(cadata=certificate()[1])


# --- the client


class Client:
    """Speaks the Centrifugo protocol through a proxy, answers pings, and keeps what it was sent."""

    def __init__(self, connection):
        self.connection = connection
        self.published, self.pings, self.changed = [], 0, asyncio.Event()
        self.reading = asyncio.ensure_future(self.read())

    async def read(self):
        """Until the connection ends; gives the close code."""
        try:
            async for message in self.connection:
                for line in message.splitlines():
                    await self.take(json.loads(line))
        except ConnectionClosed:
            pass
        finally:
            self.changed.set()
        return self.connection.close_code

    async def take(self, reply):
        if reply == {}:
            self.pings += 1
            await self.connection.send("{}")
        elif "push" in reply:
            self.published.append(reply["push"]["pub"]["data"])
        else:
            assert "error" not in reply, reply
        self.changed.set()

    async def until(self, condition, what):
        """Waits until `condition` of this client holds; its end is an error."""
        async with asyncio.timeout(DEADLINE):
            while not condition(self):
                assert not self.reading.done(), f"closed with {self.connection.close_code} before {what}"
                self.changed.clear()
                await self.changed.wait()

    async def receives(self, gateway, channel, data):
        await gateway.publish(channel, data)
        await self.until(lambda self: self.published[-1:] == [data], f"{data} in {channel}")


@contextlib.asynccontextmanager
async def handshake(proxy, host=None, origin=None, source=None, **headers):
    """`source` is the address that a load balancer in front would name."""
    options = {"proxy": None, "additional_headers": headers}
    if source is not None:
        line = options["sock"] = socket.create_connection(("127.0.0.1", proxy.port), DEADLINE)
        line.sendall(f"PROXY TCP4 {source} 127.0.0.1 56324 {proxy.port}\r\n".encode())
        line.setblocking(False)
    else:
        options |= {"host": "127.0.0.1", "port": proxy.port}
    if proxy.has_tls:
        options |= {"ssl": trust(), "server_hostname": HOST}
    uri = f"{'wss' if proxy.has_tls else 'ws'}://{host or proxy.host}/connection/websocket"
    async with connect(uri, origin=origin, ping_interval=None, open_timeout=DEADLINE, **options) as connection:
        yield connection


@contextlib.asynccontextmanager
async def client(proxy, channel):
    """Connected and subscribed."""
    async with handshake(proxy) as connection:
        await connection.send('{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": {"channel": channel}}))
        replies = []
        while len(replies) < 2:
            replies += [json.loads(line) for line in (await asyncio.wait_for(connection.recv(), DEADLINE)).splitlines()]
        assert [reply["id"] for reply in replies] == [1, 2] and not any("error" in reply for reply in replies), replies
        one = Client(connection)
        try:
            yield one
        finally:
            one.reading.cancel()


# --- a backend that is asked


class Backend:
    """Lets everybody in, and keeps where the gateway says that each came from."""

    def __init__(self):
        self.sources = []

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
                self.sources.append(fields.get("x-forwarded-for"))
                answer = b'{"result":{"user":"42"}}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def backend():
    one = Backend()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = "http://127.0.0.1:%d/" % server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


# --- an upstream that looks


class Upstream:
    """Answers everything with 200 and keeps the heads, by connection. /connection/stream is answered bit by bit."""

    def __init__(self):
        self.heads, self.more = [], asyncio.Event()

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = {}
                for name, value in (line.split(": ", 1) for line in head[1:] if line):
                    fields.setdefault(name.lower(), []).append(value)
                fields = {name: ", ".join(values) for name, values in fields.items()}
                self.heads.append((writer.get_extra_info("peername")[1], head[0], fields))
                if "/connection/stream" in head[0]:
                    await self.stream(writer)
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()

    async def stream(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await writer.drain()
        await self.more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    def from_clients(self):
        """Heads that a proxy has passed on, without those of its own questions."""
        return [(connection, line, fields) for connection, line, fields in self.heads if "x-forwarded-for" in fields]


@contextlib.asynccontextmanager
async def upstream():
    one = Upstream()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


async def request(proxy, path, *lines):
    """The connection after a request by hand: (reader, writer)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=trust(), server_hostname=HOST)
    head = [f"GET {path} HTTP/1.1", f"Host: {proxy.host}", *lines]
    writer.write("".join(f"{line}\r\n" for line in [*head, ""]).encode())
    return reader, writer
