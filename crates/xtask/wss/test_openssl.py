"""`openssl s_client` and the gateway: versions, ciphers, names, resumption, ALPN, certificates of clients, the end."""

import re
import socket
import ssl
import threading

import pytest

from support import OTHER_HOST, REQUEST, Program, ask, authorities, converse, gateway, s_client, until

VERSIONS = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
each_version = pytest.mark.parametrize("version", VERSIONS)


def close_notifies(said):
    """How many the other side has sent; `-msg` shows each message."""
    return len(re.findall(r"<<< TLS 1\.[23], Alert \[length 0002\], warning close_notify", said))


@each_version
def test_a_client_converses_and_is_told_the_end(plain, version):
    with Program(s_client(plain.port, VERSIONS[version], "-quiet", "-verify_quiet")) as program:
        converse(program, plain, f"openssl-{version}")
        status, _ = program.end()
        assert status == 0
    status, said = ask(s_client(plain.port, VERSIONS[version], "-msg"))
    assert status == 0 and f"New, {version}, Cipher is " in said and "HTTP/1.1 200 OK" in said
    assert close_notifies(said) == 1


def test_an_end_without_close_notify_would_be_seen():
    ours, _ = authorities()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours / "a.pem", ours / "a.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            client = context.wrap_socket(listener.accept()[0], server_side=True, suppress_ragged_eofs=True)
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            # As TCP, past TLS.
            socket.socket(fileno=client.detach()).close()

        thread = threading.Thread(target=serve)
        thread.start()
        status, said = ask(s_client(listener.getsockname()[1], "-msg"))
        thread.join()
    assert "HTTP/1.1 200 OK" in said and (status, close_notifies(said)) != (0, 1)
    assert close_notifies(said) == 0


@pytest.mark.parametrize("old", ["-tls1", "-tls1_1"])
def test_versions_below_1_2_are_refused(plain, old):
    ciphers = ["-cipher", "ALL:@SECLEVEL=0"]
    status, said = ask(s_client(plain.port, old, *ciphers))
    assert status != 0 and re.search(r"alert (handshake failure|protocol version)", said), said
    status, said = ask(s_client(plain.port, "-tls1_2", *ciphers))
    assert status == 0 and "HTTP/1.1 200 OK" in said


@pytest.mark.parametrize(
    "good, bad",
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"),  # no CBC
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-CCM"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "AES256-GCM-SHA384"),  # no RSA key exchange
    ],
)
def test_ciphers_without_forward_secrecy_or_authenticated_encryption_are_refused(plain, good, bad):
    status, said = ask(s_client(plain.port, "-tls1_2", "-cipher", bad))
    assert status != 0 and "alert handshake failure" in said, said
    status, said = ask(s_client(plain.port, "-tls1_2", "-cipher", good))
    assert status == 0 and f"Cipher is {good}" in said


def test_our_order_of_ciphers_counts(plain):
    theirs = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"
    _, said = ask(s_client(plain.port, "-tls1_3", "-ciphersuites", theirs))
    assert "Cipher is TLS_AES_256_GCM_SHA384" in said
    _, said = ask(s_client(plain.port, "-tls1_3", "-ciphersuites", f"{theirs}:TLS_AES_128_GCM_SHA256"))
    assert "Cipher is TLS_AES_128_GCM_SHA256" in said


@each_version
def test_the_named_host_chooses_the_certificate_and_its_key(plain, version):
    for host, key in ((OTHER_HOST, "RSA"), ("localhost", "ECDSA")):
        status, said = ask(s_client(plain.port, VERSIONS[version], host=host))
        assert status == 0 and f"Verified peername: {host}" in said and f"Peer signature type: {key}" in said, said
    # One letter more: the first of the list, which is for another.
    status, said = ask(s_client(plain.port, VERSIONS[version], host=f"{OTHER_HOST}s"))
    assert status != 0 and "hostname mismatch" in said, said


def test_whoever_trusts_another_authority_does_not_connect(plain):
    ours, strange = authorities()
    for authority, well in ((strange, False), (ours, True)):
        arguments = s_client(plain.port)
        arguments[arguments.index("-CAfile") + 1] = authority / "ca.pem"
        status, said = ask(arguments)
        assert (status == 0, "Verification: OK" in said) == (well, well), said


@each_version
def test_a_session_is_resumed_with_its_ticket_until_a_reload(tmp_path, version):
    session = tmp_path / "session.pem"

    def resumed(*more):
        status, said = ask(s_client(at.port, VERSIONS[version], *more))
        assert status == 0 and "HTTP/1.1 200 OK" in said, said
        assert "Max Early Data: 0" in said or version == "TLSv1.2"
        return f"Reused, {version}" in said

    with gateway() as at:
        assert not resumed("-sess_out", session)
        # Whichever of the two workers it comes to.
        for _ in range(4):
            assert resumed("-sess_in", session)
        assert at.counted("tls_resumed") == 4
        at.reload()
        assert not resumed("-sess_in", session), "new keys"


def test_nothing_is_kept_of_a_session_whose_client_takes_no_ticket(plain, tmp_path):
    for more, is_resumable in ((["-no_ticket"], False), ([], True)):
        session = tmp_path / "session.pem"
        _, said = ask(s_client(plain.port, "-tls1_2", *more, "-sess_out", session))
        assert "HTTP/1.1 200 OK" in said and session.exists() == is_resumable, said


@each_version
def test_http_1_1_is_agreed_on_and_whoever_speaks_only_others_is_refused(plain, version):
    for offer, agreed in (("http/1.1", True), ("h2,http/1.1", True), ("http/1.1,h2", True), ("h2", False)):
        status, said = ask(s_client(plain.port, VERSIONS[version], "-alpn", offer))
        assert (status == 0, "ALPN protocol: http/1.1" in said) == (agreed, agreed), said
        assert agreed or "alert no application protocol" in said, said
    status, said = ask(s_client(plain.port, VERSIONS[version]))
    assert status == 0 and "No ALPN negotiated" in said


def shows(authority, file):
    return ["-cert", authority / f"{file}.pem", "-key", authority / f"{file}.key"]


@each_version
def test_only_clients_with_a_certificate_of_the_right_authority_get_in(version):
    ours, strange = authorities()
    with gateway('client_auth = "required"\nclient_ca = "@/ca.pem"\n') as at:
        for certificate, complaint in (
            (shows(ours, "device"), None),
            (shows(strange, "device"), "alert (unknown ca|decrypt error|bad certificate)"),
            ([], "alert (certificate required|handshake failure|bad certificate)"),
        ):
            status, said = ask(s_client(at.port, VERSIONS[version], *certificate))
            assert ("HTTP/1.1 200 OK" in said) == (complaint is None), said
            assert complaint is None or (status != 0 and re.search(complaint, said)), said
        assert at.counted("tls_failed") == 2
        with Program(s_client(at.port, VERSIONS[version], "-quiet", "-verify_quiet", *shows(ours, "device"))) as program:
            converse(program, at, "devices")
    with gateway('client_auth = "optional"\nclient_ca = "@/ca.pem"\n') as at:
        for certificate, well in ((shows(ours, "device"), True), (shows(strange, "device"), False), ([], True)):
            _, said = ask(s_client(at.port, VERSIONS[version], *certificate))
            assert ("HTTP/1.1 200 OK" in said) == well, said


def test_a_client_may_renew_its_keys_and_in_tls_1_2_may_not_renegotiate(plain):
    # `K` asks for the other side's new keys, too; `R` begins a handshake within the session.
    for version, letter, word, well in (("TLSv1.3", b"K\n", b"KEYUPDATE", True), ("TLSv1.2", b"R\n", b"RENEGOTIATING", False)):
        arguments = s_client(plain.port, VERSIONS[version], "-msg", "-verify_quiet")
        arguments.remove("-ign_eof")
        before = plain.counted("tls_handshakes")
        with Program(arguments) as program:
            until(lambda: plain.counted("tls_handshakes") > before, "handshake")
            program.write(letter)
            until(lambda: word in program.errors, word)
            program.write(REQUEST)
            _, said = program.end()
        assert ("HTTP/1.1 200 OK" in said) == well, said
        # That of the gateway, in answer to the client's.
        assert ("<<< TLS 1.3, Handshake [length 0005], KeyUpdate" in said) == well, said
