"""The web configuration file: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esnode import web
from esnode.config import ConfigError
from esnode.http.tls import attempt
from esnode.web import Web

from .pki import authority

HASH = "$2y$10$Ataist3H67g1SXQ7zSlkkugptVDsBHBHqXmoVcahKy6/4QU5XxdrS"
TLS = "tls_server_config: {cert_file: a.crt, key_file: a.key"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a server's certificate, another one's, a client CA, and tokens."""
    authority().server("a").write(tmp_path, "a")
    authority().server("b").write(tmp_path, "b")
    (tmp_path / "ca.crt").write_bytes(authority().certificate)
    (tmp_path / "tokens").write_text("# of Prometheus\n0123456789abcdef\n\n  fedcba9876543210==\n")
    return tmp_path


def load(directory: Path, text: str, seen: list[Path] | None = None) -> Web:
    (directory / "web.yml").write_text(text)
    return web.load(str(directory / "web.yml"), seen)


def refused(directory: Path, text: str) -> str:
    """The message; one line that begins with the file's name."""
    with pytest.raises(ConfigError) as error:
        load(directory, text)
    message = str(error.value)
    assert message.startswith(f"{directory}/web.yml: ")
    assert len(message.splitlines()) == 1
    return message


def test_a_file_of_the_exporters(directory: Path) -> None:
    found = load(
        directory,
        "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
        "  min_version: TLS13\n  max_version: TLS13\n"
        "http_server_config:\n  http2: false\n  headers:\n"
        "    X-Frame-Options: sameorigin\n    Strict-Transport-Security: max-age=60\n"
        f"basic_auth_users:\n  alice: {HASH}\n  'b ü': {HASH}\n",
    )
    assert found.tls is not None
    assert found.tls.certificate == (directory / "a.crt").read_bytes()
    assert found.tls.key == (directory / "a.key").read_bytes()
    assert found.tls.client_ca == authority().certificate
    assert (found.tls.required, found.tls.minimum) == (True, "tls1.3")
    assert found.users == {"alice": HASH.encode(), "b ü": HASH.encode()}
    assert dict(found.headers) == {
        "x-frame-options": "sameorigin",
        "strict-transport-security": "max-age=60",
    }


def test_the_least_files(directory: Path) -> None:
    assert load(directory, "") == Web()
    assert load(directory, "{basic_auth_users: , tls_server_config: {}}") == Web()
    found = load(directory, TLS + "}").tls
    assert found is not None
    assert (found.client_ca, found.required, found.minimum) == (None, False, "tls1.2")


def test_the_example_of_the_documents(directory: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/access.md").read_text()
    (example,) = re.findall(r"```yaml\n# /etc/esnode/web.yml\n(.*?)```", page, re.S)
    for file in re.findall(r"_file: (\S+)", example):
        source = {"tls.crt": "a.crt", "tls.key": "a.key"}.get(file, file)
        (directory / file).write_bytes((directory / source).read_bytes())
    found = load(directory, example)
    assert found.tls
    assert list(found.users) == ["prometheus"]
    assert found.tokens


def test_certificates_may_stand_in_the_file_itself(directory: Path) -> None:
    pem = {
        name: (directory / name).read_text().replace("\n", "\n    ") for name in ("a.crt", "a.key")
    }
    inline = load(
        directory,
        f"tls_server_config:\n  cert: |\n    {pem['a.crt']}\n  key: |\n    {pem['a.key']}\n",
    )
    assert inline.tls is not None
    assert inline.tls.certificate.split() == (directory / "a.crt").read_bytes().split()


def test_certificates_are_tried_out_by_nothing_of_the_directory_that_one_is_in(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load(directory, f"{TLS}}}")
    (directory / "esnode").mkdir()
    (directory / "esnode" / "__init__.py").write_text("raise SystemExit('another program')")
    monkeypatch.chdir(directory)
    assert found.tls is not None
    attempt(found.tls)


def test_tokens_are_lines_of_a_file_beside_it(directory: Path) -> None:
    seen: list[Path] = []
    found = load(directory, "bearer_token_file: tokens", seen)
    assert found.tokens == ("0123456789abcdef", "fedcba9876543210==")
    assert seen == [directory / "web.yml", directory / "tokens"]


def test_optional_client_certificates(directory: Path) -> None:
    found = load(
        directory, TLS + ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt}"
    )
    assert found.tls is not None
    assert found.tls.client_ca
    assert not found.tls.required


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("basic_auth_user: {a: b}", ["basic_auth_user:", "closest is basic_auth_users"]),
        ("[a]", ["found a list", "a mapping"]),
        ("basic_auth_users: [alice]", ["basic_auth_users", "found a list"]),
        ("a: [", ["invalid YAML", "line 1"]),
        ("basic_auth_users:\n  a: x\n  a: y", ["line 3", "twice"]),
        ("rate_limit: {interval: 1s, burst: 2}", ["rate_limit", "not supported"]),
        ("http_server_config: {http2: true}", ["http2", "HTTP/1.1"]),
        ("http_server_config: {header: {}}", ["http_server_config.header", "headers"]),
        ("http_server_config: {headers: {X-Frame-Options: no}}", ["X-Frame-Options"]),
        ("http_server_config: {headers: {X-Frame-Options: 'none'}}", ["deny or sameorigin"]),
        ("http_server_config: {headers: {X-Frame-Option: deny}}", ["X-Frame-Options"]),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}', ["printable"]),
        (TLS + ", client_allowed_sans: [a]}", ["client_allowed_sans", "not supported"]),
        (TLS + ", cipher_suites: [A]}", ["cipher_suites", "not supported"]),
        (TLS + ", curve_preferences: [A]}", ["curve_preferences", "not supported"]),
        (TLS + ", prefer_server_cipher_suites: true}", ["not supported"]),
        (TLS + ", min_version: TLS11}", ["min_version", "TLS12, TLS13"]),
        (TLS + ", max_version: TLS12}", ["max_version", "TLS13"]),
        (TLS + ", min_versoin: TLS12}", ["min_versoin", "closest is min_version"]),
        (TLS + ", client_auth_type: RequireAnyClientCert}", ["not supported", "whoever"]),
        (TLS + ", client_auth_type: RequestClientCert}", ["not supported"]),
        (TLS + ", client_auth_type: Yes please}", ["RequireAndVerifyClientCert"]),
        (TLS + ", client_auth_type: RequireAndVerifyClientCert}", ["needs a client_ca_file"]),
        (TLS + ", client_ca_file: ca.crt}", ["verifies nobody"]),
        (
            TLS + ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: tokens}",
            ["client_ca", "no certificates"],
        ),
        ("tls_server_config: {cert_file: a.crt}", ["key_file is missing"]),
        ("tls_server_config: {key_file: a.key}", ["cert_file is missing"]),
        ("tls_server_config: {cert_file: 1, key_file: a.key}", ["a number", "text"]),
        ("tls_server_config: {cert_file: a.crt, key_file: b.key}", ["not this certificate's"]),
        ("tls_server_config: {cert_file: tokens, key_file: a.key}", ["PEM"]),
        ("tls_server_config: {cert_file: broken, key_file: a.key}", ["damaged"]),
        ("tls_server_config: {cert_file: no.crt, key_file: a.key}", ["no.crt", "No such file"]),
        ("tls_server_config: {cert_file: ., key_file: a.key}", ["cert_file", "directory"]),
        ("tls_server_config: {cert_file: pipe, key_file: a.key}", ["pipe", "no regular file"]),
        (TLS + ", cert: x}", ["exclude each other"]),
        ("basic_auth_users: {alice: hunter2}", ["'alice'", "bcrypt", "htpasswd"]),
        ("basic_auth_users: {12: x}", ["'12'", "quotes"]),
        ("basic_auth_users: {'a:b': x}", ["colon"]),
        (f"basic_auth_users: {{alice: {HASH.replace('$10$', '$31$')}}}", ["cost of 31"]),
        ("bearer_token_file: nowhere", ["bearer_token_file", "nowhere"]),
        ("bearer_token_file: short", ["token 2", "16"]),
        ("bearer_token_file: empty", ["no token"]),
    ],
)
def test_a_refusal_says_where_and_what_to_write(
    text: str, words: list[str], directory: Path
) -> None:
    os.mkfifo(directory / "pipe")
    (directory / "short").write_text("0123456789abcdef\nshort\n")
    (directory / "empty").write_text("# nothing\n")
    (directory / "broken").write_bytes(
        (directory / "a.crt").read_bytes()[:200] + b"-----END CERTIFICATE-----\n"
    )
    message = refused(directory, text)
    assert [word for word in words if word not in message] == [], message


def test_an_encrypted_key_is_not_asked_for(directory: Path) -> None:
    (directory / "a.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n")
    assert "encrypted" in refused(directory, TLS + "}")


def test_a_file_that_cannot_be_read(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"web.yml: cannot be read: No such file"):
        web.load(str(directory / "web.yml"))


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"basic_auth_users: {{alice: {SECRET}}}",
        f"basic_auth_users: {SECRET}",
        f"basic_auth_users:\n  alice: *{SECRET}",
        f"basic_auth_users:\n  alice: !{SECRET} a",
        f'basic_auth_users:\n  alice: "{SECRET}',
        f'basic_auth_users:\n  alice: "{SECRET}\\q"',
        f"basic_auth_users:\n  alice: @{SECRET}",
        f"basic_auth_users:\n\talice: {SECRET}",
        f"basic_auth_users: {{alice: [{SECRET}]}}",
        f"tls_server_config: {{cert_file: a.crt, key: {SECRET}}}",
        "bearer_token_file: secret",
    ],
)
def test_no_refusal_shows_a_secret(text: str, directory: Path) -> None:
    (directory / "secret").write_text(f"{SECRET} \x00\n")
    assert SECRET not in refused(directory, text)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    document=st.one_of(st.binary(max_size=60), st.text("ab:{}[]-&*!|>'\"#%@,?\n\t ", max_size=40))
)
def test_any_bytes_are_taken_or_refused_in_one_line(document: bytes | str, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_bytes(document.encode() if isinstance(document, str) else document)
    try:
        web.load(str(tmp_path / "web.yml"))
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


def test_the_hashes_that_tools_make_are_taken(directory: Path) -> None:
    made = bcrypt.hashpw(b"password", bcrypt.gensalt(4)).decode()
    for prefix in ("$2a$", "$2b$", "$2y$"):
        stored = prefix + made[4:]
        assert load(directory, f"basic_auth_users: {{a: {stored}}}").users["a"] == stored.encode()
        assert bcrypt.checkpw(b"password", stored.encode())
