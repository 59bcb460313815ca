"""`gnutls-cli` and the gateway: another library's idea of the same protocol."""

import re

import pytest

from support import OTHER_HOST, Program, ask, authorities, converse, gateway, gnutls

VERSIONS = {"1.2": "NORMAL:-VERS-ALL:+VERS-TLS1.2", "1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
each_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


@each_version
def test_a_client_converses_and_is_told_the_end(plain, notes, version):
    with Program(gnutls(plain.port, notes, "--priority", VERSIONS[version]), notes) as program:
        converse(program, plain, f"gnutls-{version}")
        _, said = program.end()
    assert f"(TLS{version}-" in said and "Peer has closed the GnuTLS connection" in said, said


@each_version
def test_versions_below_1_2_are_refused(plain, notes, version):
    for priority, well in (("NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT", False), (VERSIONS[version], True)):
        _, said = ask(gnutls(plain.port, notes, "--priority", priority), notes)
        assert ("200 OK" in said) == well, said
        assert well or re.search("Handshake failed|unsupported protocol|protocol version", said), said


@each_version
def test_the_named_host_chooses_the_certificate(plain, notes, version):
    for host, key in ((OTHER_HOST, "RSA"), ("localhost", "ECDSA")):
        _, said = ask(gnutls(plain.port, notes, "--priority", VERSIONS[version], host=host), notes)
        assert "200 OK" in said and f"subject `CN={host}'" in said and f"({key}" in said, said
    _, said = ask(gnutls(plain.port, notes, "--priority", VERSIONS[version], host=f"{OTHER_HOST}s"), notes)
    assert "200 OK" not in said and "name in the certificate does not match" in said, said


@each_version
def test_a_session_is_resumed(plain, notes, version):
    _, said = ask(gnutls(plain.port, notes, "--priority", VERSIONS[version], "--resume"), notes)
    # The first connection is for the ticket alone.
    assert "This is a resumed session" in said and "200 OK" in said, said
    at = plain.counted("tls_resumed")
    _, said = ask(gnutls(plain.port, notes, "--priority", VERSIONS[version]), notes)
    assert "This is a resumed session" not in said and "200 OK" in said, said
    assert plain.counted("tls_resumed") == at


@each_version
def test_http_1_1_is_agreed_on_and_whoever_speaks_only_others_is_refused(plain, notes, version):
    for offers, agreed in ((["http/1.1"], True), (["h2", "http/1.1"], True), (["h2"], False)):
        alpn = [word for offer in offers for word in ("--alpn", offer)]
        _, said = ask(gnutls(plain.port, notes, "--priority", VERSIONS[version], *alpn), notes)
        assert ("Application protocol: http/1.1" in said, "200 OK" in said) == (agreed, agreed), said


@each_version
def test_only_clients_with_a_certificate_of_the_right_authority_get_in(notes, version):
    ours, strange = authorities()
    # Without a name to choose by, the client would show none of a stranger's.
    with gateway('client_auth = "required"\nclient_ca = "@/ca.pem"\n') as at:
        for authority, well in ((ours, True), (strange, False), (None, False)):
            files = ["--x509certfile", authority / "device.pem", "--x509keyfile", authority / "device.key"] if authority else []
            _, said = ask(gnutls(at.port, notes, "--priority", VERSIONS[version], *files), notes)
            assert ("200 OK" in said) == well, said
        assert at.counted("tls_failed") == 2
