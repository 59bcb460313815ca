#!/usr/bin/env python3
"""Starts the gateway under the system call filter of tidegate.service, without starting a service manager.

    python3 deploy/measure/syscalls.py target/release/tidegate

The unit's SystemCallFilter lines are spelt out by `systemd-analyze syscall-filter` and become a filter of libseccomp
for one process. It shows that the gateway starts on io_uring under it and upgrades a client; that without the io_uring
calls it says so and serves on epoll; and that private tables of descriptors are allowed. The results are in docs/deploy.md.
"""

import ctypes
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parents[1] / "tidegate.service"
IO_URING = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
# <seccomp.h>: what a filter does. Whoever is refused sees EPERM, as SystemCallErrorNumber of the unit says.
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1
ANSWER_S = 10


def calls(group):
    """The system calls of a group such as @system-service, or the one call that is named."""
    if not group.startswith("@"):
        return {group}
    command = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.strip() for line in listed.splitlines()[1:]]
    return set().union(*(calls(line) for line in lines if line and not line.startswith("#")))


def allowed(unit):
    """What the SystemCallFilter lines of a unit leave: the first says that it is a list of what is allowed."""
    assert "SystemCallErrorNumber=EPERM" in unit
    lines = re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE)
    assert lines and not lines[0].startswith("~"), lines
    # What systemd always allows.
    left = calls("@default")
    for line in lines:
        named = set().union(*(calls(word) for word in line.removeprefix("~").split()))
        left = left - named if line.startswith("~") else left | named
    return left


def restrict(names):
    """From here on this process, and what it becomes, may make no other system calls."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    filter = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Names of other machines have no number here, or one below zero.
        if number >= 0:
            status = library.seccomp_rule_add(filter, ctypes.c_uint32(ALLOW), ctypes.c_int(number), ctypes.c_uint(0))
            assert status == 0, (name, status)
    assert library.seccomp_load(filter) == 0


def serve(binary, names, **variables):
    """The banner of a gateway under the filter, and the first line of what it answers to a WebSocket handshake."""
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
    environment = {"TIDEGATE_CLIENT__ANONYMOUS": "true", **variables}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    gateway = subprocess.Popen(command, env=environment, preexec_fn=lambda: restrict(names), **options)
    try:
        told = ""
        while "open files" not in told and (line := gateway.stderr.readline()):
            told += line
        address = re.search(r"listening public http://127\.0\.0\.1:(\d+)", told)
        assert address, told
        with socket.create_connection(("127.0.0.1", int(address[1])), timeout=ANSWER_S) as client:
            client.sendall(HANDSHAKE)
            return told, client.recv(4_096).decode().splitlines()[0]
    finally:
        gateway.kill()
        gateway.wait()


HANDSHAKE = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def main(binary):
    names = allowed(UNIT.read_text())
    has_it = IO_URING <= calls("@system-service")
    print(f"{len(names)} system calls are allowed; @system-service has io_uring: {has_it}")
    tables = {"TIDEGATE_WORKERS__PRIVATE_FD_TABLES": "on"}
    well = True
    for what, names, variables, wanted in (
        ("the unit's filter", names, {}, "driver uring"),
        ("the same, private tables of descriptors", names, tables, "driver uring"),
        ("without io_uring", names - IO_URING, {}, "driver epoll (io_uring cannot be used: "),
    ):
        told, answer = serve(binary, names, **variables)
        driver = next(line for line in told.splitlines() if line.startswith("driver"))
        as_wanted = driver.startswith(wanted) and answer == "HTTP/1.1 101 Switching Protocols"
        well &= as_wanted
        print(f"{'ok ' if as_wanted else 'NOT'} {what}: {driver}; {answer}")
    return 0 if well else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(os.path.abspath(sys.argv[1])))
