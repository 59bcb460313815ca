#!/usr/bin/env python3
"""Shows what the lines of sysctl.d/60-tidegate.conf do: each value in a network namespace of its own, loopback only.

    python3 deploy/measure/sysctls.py [queue] [migrate] [ports] [backlog] [sends]

Nothing of the machine's own settings is changed; less than a minute. Needs util-linux (`unshare`), iproute2 (`ip`), and
root or user namespaces. A process here opens at most 15,600 files. The results are in docs/deploy.md.
"""

import contextlib
import errno
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time

# How often each value is tried; the median counts.
ROUNDS = 3
# Longest time of one try.
DEADLINE_S = 60


# --- what is tried, each in a fresh namespace


def queue():
    """Of 6,000 connections at once to a listener that does not accept: how many are there after half a second."""
    wanted, listener = 6_000, listening(backlog=16_384)
    clients = [started(listener.getsockname()) for _ in range(wanted)]
    time.sleep(0.5)
    return sum(is_connected(client) for client in clients)


def migrate():
    """Of 400 connections queued for four listeners of one port, one of which closes: how many are reset."""
    wanted = 400
    first = listening(backlog=1_024, shared=True)
    listeners = [first] + [listening(backlog=1_024, shared=True, port=first.getsockname()[1]) for _ in range(3)]
    clients = [socket.create_connection(first.getsockname()) for _ in range(wanted)]
    listeners.pop().close()
    served = []
    for listener in listeners:
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                served.append(listener.accept()[0])
                served[-1].sendall(b"x")
    reset = 0
    for client in clients:
        client.settimeout(5)
        try:
            assert client.recv(1) == b"x"
        except ConnectionResetError:
            reset += 1
    assert reset + len(served) == wanted, (reset, len(served))
    return reset


def ports():
    """Microseconds of CPU for one more connection to an address that has 15,000 from here already."""
    # Nobody accepts; they wait in a queue that is long enough.
    write("net.core.somaxconn", "65535")
    listener, more = listening(backlog=65_535), 500
    address = listener.getsockname()
    clients = [socket.create_connection(address) for _ in range(15_000)]
    before = time.process_time()
    clients += [socket.create_connection(address) for _ in range(more)]
    return round((time.process_time() - before) / more * 1e6)


def backlog():
    """KiB that the kernel takes for one client that reads nothing."""
    listener = listening(backlog=1)
    client = socket.create_connection(listener.getsockname())
    server = listener.accept()[0]
    server.setblocking(False)
    taken, end = 0, time.monotonic() + 1
    while time.monotonic() < end:
        try:
            taken += server.send(bytes(16_384))
        except BlockingIOError:
            # What the peer's buffer still takes moves on by itself.
            select.select([], [server], [], 0.1)
    client.close()
    return taken // 1024


def sends():
    """Microseconds of CPU for one send of 100 bytes, to each of 100 clients in turn, their receiving not counted."""
    listener, rounds = listening(backlog=128), 300
    pairs = []
    for _ in range(100):
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
        in_use = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        assert in_use == os.environ["TCP_CONGESTION"], in_use
        pairs.append((server, client))
    message = bytes(100)

    def turn():
        for server, _ in pairs:
            server.send(message)
        spent = time.process_time()
        for _, client in pairs:
            client.recv(4_096)
        return time.process_time() - spent

    for _ in range(20):
        turn()
    before, reading = time.process_time(), sum(turn() for _ in range(rounds))
    return round((time.process_time() - before - reading) / rounds / len(pairs) * 1e6, 2)


# --- sockets


def listening(backlog, shared=False, port=0):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    if congestion := os.environ.get("TCP_CONGESTION"):
        # By socket, because namespaces may not choose among all of them.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    listener.bind(("127.0.0.1", port))
    listener.listen(backlog)
    return listener


def started(address):
    client = socket.socket()
    client.setblocking(False)
    assert client.connect_ex(address) in (0, errno.EINPROGRESS)
    return client


def is_connected(client):
    try:
        client.getpeername()
        return True
    except OSError:
        return False


# --- namespaces


def path(name):
    return "/proc/sys/" + name.replace(".", "/")


def read(name):
    with open(path(name)) as file:
        return file.read().strip()


def write(name, value):
    with open(path(name), "w") as file:
        file.write(value)


CASES = {
    "queue": (queue, [{"net.core.somaxconn": "128"}, {"net.core.somaxconn": "4096"}, {"net.core.somaxconn": "16384"}]),
    "migrate": (migrate, [{"net.ipv4.tcp_migrate_req": "0"}, {"net.ipv4.tcp_migrate_req": "1"}]),
    "ports": (
        ports,
        [{"net.ipv4.ip_local_port_range": "32768 60999"}, {"net.ipv4.ip_local_port_range": "10240 65535"}],
    ),
    "backlog": (
        backlog,
        [{"net.ipv4.tcp_notsent_lowat": "4294967295"}, {"net.ipv4.tcp_notsent_lowat": "131072"}],
    ),
    "sends": (sends, [{"TCP_CONGESTION": "cubic"}, {"TCP_CONGESTION": "bbr"}]),
}


def inside(case, outer, settings):
    """In the new namespace: sets, tries once, prints the result."""
    # Without this a mistake would change the machine.
    assert os.readlink("/proc/self/ns/net") != outer, "not in a network namespace of its own"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in settings.items():
        if "." in name:
            write(name, value)
        else:
            os.environ[name] = value
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(json.dumps(CASES[case][0]()))


def once(case, settings):
    """The result of one try in a namespace of its own, which ends with its last process; or why there is none."""
    namespaces = ["--net"] if os.geteuid() == 0 else ["--net", "--user", "--map-root-user"]
    outer = os.readlink("/proc/self/ns/net")
    command = ["unshare", *namespaces, sys.executable, __file__, "--inside", case, outer, json.dumps(settings)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    return json.loads(ran.stdout) if ran.returncode == 0 else ran.stderr.strip().splitlines()[-1]


def main(chosen):
    print(f"Linux {os.uname().release}, {os.cpu_count()} cores; medians of {ROUNDS}, and all, sorted")
    for case in chosen or CASES:
        does, values = CASES[case]
        print(f"\n{case}: {does.__doc__}")
        rounds = [[once(case, settings) for settings in values] for _ in range(ROUNDS)]
        for at, settings in enumerate(values):
            told = " ".join(f"{name} = {value}" for name, value in settings.items())
            results = [results[at] for results in rounds]
            refused = [result for result in results if isinstance(result, str)]
            if refused:
                print(f"  {told:<50} cannot be tried: {refused[0]}")
            else:
                print(f"  {told:<50} {sorted(results)[ROUNDS // 2]:>8}  {sorted(results)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case "--inside", case, outer, settings:
            inside(case, outer, json.loads(settings))
        case chosen if all(case in CASES for case in chosen):
            main(chosen)
        case _:
            sys.exit(__doc__)
