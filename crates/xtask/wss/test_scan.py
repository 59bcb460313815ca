"""What a scanner that knows the weaknesses of TLS finds: nothing, and the table of docs/tls.md.

sslyze is started as a program, and its report is read.
"""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from pathlib import Path

from coroutines import DEADLINE
from support import HOST, OTHER_HOST, authorities, gateway

DOCS = Path(__file__).parents[3] / "docs/tls.md"
BEGIN, END = "<!-- the table that the scan compares -->\n\n", "\n<!-- its end -->\n"
VERSIONS = {f"{kind}_cipher_suites": name for kind, name in (
    ("ssl_2_0", "SSL 2.0"), ("ssl_3_0", "SSL 3.0"), ("tls_1_0", "TLS 1.0"),
    ("tls_1_1", "TLS 1.1"), ("tls_1_2", "TLS 1.2"), ("tls_1_3", "TLS 1.3"),
)}  # fmt: skip
# Kind of scan, field of its result, what it is called in the table, and what it has to be.
REST = [
    ("tls_compression", "supports_compression", "compression (CRIME)", False),
    ("tls_1_3_early_data", "supports_early_data", "early data (replay)", False),
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", "renegotiation by the client", False),
    ("session_renegotiation", "supports_secure_renegotiation", "secure renegotiation (RFC 5746)", True),
    ("tls_extended_master_secret", "supports_ems_extension", "extended master secret (RFC 7627)", True),
    ("tls_fallback_scsv", "supports_fallback_scsv", "fallback is noticed (RFC 7507)", True),
    ("heartbleed", "is_vulnerable_to_heartbleed", "Heartbleed", False),
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", "CCS injection", False),
    ("robot", "robot_result", "ROBOT", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
]
# SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which has no name in Python.
ALLOW_CLIENT_RENEGOTIATION = 1 << 8
SCANS = ["sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "compression", "early_data", "reneg", "ems", "fallback"]
SCANS += ["heartbleed", "openssl_ccs", "robot", "elliptic_curves"]


def scan(port, host, file, kinds=tuple(SCANS)):
    """The results by kind of scan."""
    kinds = [f"--{kind}" for kind in kinds]
    command = [sys.executable, "-m", "sslyze", "--quiet", "--sni", host, *kinds, "--json_out", file, f"127.0.0.1:{port}"]
    # Its scans, each of many connections, are over within a second.
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE)
    [server] = json.loads(file.read_text())["server_scan_results"] if file.exists() else [None]
    assert server and server["scan_status"] == "COMPLETED", ran.stdout + ran.stderr
    results = {kind: scan["result"] for kind, scan in server["scan_result"].items() if scan["status"] == "COMPLETED"}
    assert len(results) == len(kinds), {kind: scan["error_trace"] for kind, scan in server["scan_result"].items() if scan["error_trace"]}
    return results


def suites(result):
    return sorted(suite["cipher_suite"]["name"] for suite in result["accepted_cipher_suites"])


def weaknesses(results):
    """What is weak by the rules of Mozilla's `intermediate`, or vulnerable."""
    found = []
    for kind, name in VERSIONS.items():
        for suite in suites(results[kind]) if kind in results else []:
            is_new = name in ("TLS 1.2", "TLS 1.3")
            has_secrecy = name == "TLS 1.3" or suite.startswith(("TLS_ECDHE_", "TLS_DHE_"))
            is_authenticated = "_GCM_" in suite or suite.endswith("_CHACHA20_POLY1305_SHA256")
            if not (is_new and has_secrecy and is_authenticated):
                found.append(f"{name} with {suite}")
    return found + [what for kind, field, what, wanted in REST if kind in results and results[kind][field] != wanted]


def table(by_key):
    """What docs/tls.md says: `by_key` are the results with a certificate of each kind of key."""
    words = {True: "yes", False: "no", "NOT_VULNERABLE_RSA_NOT_SUPPORTED": "no: no RSA key exchange"}
    lines = ["| | " + " | ".join(by_key) + " |", "|---|" + "---|" * len(by_key)]

    def line(what, cell):
        lines.append(f"| {what} | " + " | ".join(cell(results) for results in by_key.values()) + " |")

    for kind, name in VERSIONS.items():
        line(name, lambda results, kind=kind: "<br>".join(suites(results[kind])) or "refused")
    line("curves", lambda results: ", ".join(sorted(it["name"] for it in results["elliptic_curves"]["supported_curves"])))
    for kind, field, what, _ in REST:
        line(what, lambda results, kind=kind, field=field: words[results[kind][field]])
    return "\n".join(lines) + "\n"


def test_nothing_weak_is_found_and_the_documented_table_is_what_is(tmp_path):
    with gateway() as at:
        by_key = {key: scan(at.port, host, tmp_path / key) for key, host in (("ECDSA key", HOST), ("RSA key", OTHER_HOST))}
        # All those attempts have harmed nobody.
        assert at.counted("tls_failed") > 0
    assert [weaknesses(results) for results in by_key.values()] == [[], []]
    documented = DOCS.read_text().split(BEGIN)[1].split(END)[0]
    assert documented == table(by_key), f"docs/tls.md should have:\n{table(by_key)}"


@contextlib.contextmanager
def weak_server():
    """The port of one with old versions, old ciphers and renegotiation by the client. It serves all connections at once, as a
    scan has several: with `openssl s_server`, which has one at a time, they took each other for refusals."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        # That it is old is what is wanted.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    ours, _ = authorities()
    context.load_cert_chain(ours / "b.pem", ours / "b.key")

    def serve(connection):
        with contextlib.suppress(OSError), connection:
            with context.wrap_socket(connection, server_side=True) as secure:
                while secure.recv(4096):
                    pass

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(DEADLINE)
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # `close` alone does not wake the thread.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


def test_a_server_that_is_weak_would_be_found_out(tmp_path):
    kinds = ["tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "reneg"]
    with weak_server() as port:
        found = weaknesses(scan(port, OTHER_HOST, tmp_path / "weak", kinds))
    for what in ("TLS 1.0 with TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "TLS 1.1 with TLS_RSA_WITH_AES_128_CBC_SHA"):
        assert what in found
    for what in ("TLS 1.2 with TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS 1.2 with TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"):
        assert what in found
    assert "renegotiation by the client" in found, found
    assert not [what for what in found if "TLS 1.3" in what or "ECDHE_RSA_WITH_AES_128_GCM" in what]
