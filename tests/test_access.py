"""TLS and credentials of the real agent, with clients that are not ours, and while files change."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from .guarded import STILL, Guarded, basic
from .pki import authority, organization
from .running import PATIENCE, Agent, run, wait_for

TOKEN = "0123456789abcdef0123456789abcdef"
ALICE = basic("alice", "right")
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def stored(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of two servers and a client, and a token."""
    directory = tmp_path_factory.mktemp("web")
    for name in ("one", "two"):
        authority().server(name).write(directory, name)
    authority().client("us").write(directory, "client")
    authority("others").client("them").write(directory, "stranger")
    (directory / "ca.crt").write_bytes(authority().certificate)
    (directory / "token").write_text(TOKEN + "\n")
    return directory


@contextlib.contextmanager
def guarded(directory: Path, text: str, name: str = "web.yml") -> Iterator[Guarded]:
    """An agent with a web configuration."""
    (directory / name).write_text(text)
    context = authority().context() if "tls_server_config" in text else None
    with Guarded("--web-config-file", str(directory / name), context=context) as agent:
        yield agent


USERS = f"basic_auth_users: {{alice: {stored('right')}, bob: {stored('other')}}}\n"
TLS = "tls_server_config: {cert_file: one.crt, key_file: one.key}\n"


@pytest.fixture(scope="module")
def agent(files: Path) -> Iterator[Guarded]:
    headers = "http_server_config: {headers: {Strict-Transport-Security: max-age=60}}\n"
    with guarded(files, TLS + USERS + headers + "bearer_token_file: token\n") as agent:
        yield agent


PATHS = ["/", "/metrics", "/readyz", "/tsdb/export", "/nope", "/metrics/", "//healthz", "/Healthz"]


@pytest.mark.parametrize("path", [*PATHS, "/healthz/", "/metrics?/healthz", "/healthz%2f"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_everything_but_healthz_asks_for_credentials(
    path: str, method: str, agent: Guarded
) -> None:
    answer = agent.get(path, method)
    assert answer.status == 401
    assert "Basic" in answer.headers["www-authenticate"]
    assert method == "HEAD" or b"esnode" not in answer.body.lower()


def test_right_credentials(agent: Guarded) -> None:
    assert agent.get("/healthz").status == 200
    assert b"esnode_node_info" in agent.get(authorization=ALICE).body
    assert agent.get(authorization=basic("bob", "other")).status == 200
    assert agent.get(authorization=f"Bearer {TOKEN}").status == 200
    assert agent.get("/nope", authorization=ALICE).status == 404
    assert agent.get("/metrics", "POST", authorization=ALICE).status == 405


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        basic("alice", "wrong"),
        basic("alice", "other"),
        basic("nobody", "right"),
        basic("", ""),
        basic("alice", "right" * 1000),
        "Bearer " + TOKEN[:-1],
        "Bearer",
        "Basic \xff\xfe",
    ],
)
def test_wrong_credentials(header: str, agent: Guarded) -> None:
    answer = agent.get(authorization=header)
    assert answer.status == 401
    assert answer.body == agent.get().body
    assert agent.get(authorization=ALICE).status == 200


def test_no_secret_is_in_the_log(agent: Guarded) -> None:
    agent.get(authorization=basic("hunter2", "hunter2"))
    agent.get(authorization="Bearer hunter2hunter2hunter2")
    wait_for(lambda: "without valid credentials" in agent.log, "it is logged")
    for secret in ("hunter2", TOKEN, "$2b$", "right"):
        assert secret not in agent.log


def test_headers_of_every_answer(agent: Guarded) -> None:
    for path, header in [("/", ALICE), ("/metrics", ALICE), ("/nope", ALICE), ("/", "")]:
        headers = agent.get(path, authorization=header).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["strict-transport-security"] == "max-age=60"
        assert headers["server"] == "esnode-core"
    page = agent.get("/", authorization=ALICE).headers
    assert "default-src 'none'" in page["content-security-policy"]
    assert page["x-frame-options"] == "deny"
    assert page["referrer-policy"] == "no-referrer"


def test_curl(agent: Guarded, files: Path) -> None:
    if not (curl := shutil.which("curl")):
        pytest.skip("there is no curl")

    def fetch(*words: str, path: str = "metrics") -> str:
        url = f"https://{agent.address}/{path}"
        command = [curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "15", *words, url]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    trust = ("--cacert", str(files / "ca.crt"))
    assert fetch(*trust, "-u", "alice:right") == "200"
    assert fetch(*trust, "--anyauth", "-u", "alice:right") == "200"
    assert fetch(*trust, "--oauth2-bearer", TOKEN) == "200"
    assert fetch(*trust, "-u", "alice:wrong") == "401"
    assert fetch(*trust) == "401"
    assert fetch(*trust, path="healthz") == "200"
    assert fetch("-u", "alice:right") == "000"  # it does not know the authority


def test_a_client_that_does_not_speak_tls_harms_nobody(agent: Guarded) -> None:
    for data in (b"", REQUEST, b"\x16\x03\x01\xff\xff" + b"x" * 500, b"\x00" * 2000):
        with agent.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert b"200" not in client.recv(4096)
    held = [agent.connect() for _ in range(200)]  # no handshake at all
    try:
        assert agent.get(authorization=ALICE, timeout=5).status == 200
    finally:
        for client in held:
            client.close()
    assert "granian" not in agent.log


def test_tls_versions(agent: Guarded, files: Path) -> None:
    def version(guarded: Guarded, most: ssl.TLSVersion) -> str | None:
        context = authority().context()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = most
        context.set_ciphers("ALL:@SECLEVEL=0")
        with guarded.tls(context) as client:
            return client.version()

    assert version(agent, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert version(agent, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(OSError), pytest.warns(DeprecationWarning):
        version(agent, ssl.TLSVersion.TLSv1_1)
    newest = TLS.replace("{", "{min_version: TLS13, ")
    with guarded(files, newest, "newest.yml") as other:
        assert version(other, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(OSError):
            version(other, ssl.TLSVersion.TLSv1_2)


def test_a_client_that_trusts_another_authority_sends_nothing(agent: Guarded) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        agent.tls(authority("others").context())


def shows(files: Path, name: str | None) -> ssl.SSLContext:
    """A client that shows a certificate."""
    context = authority().context()
    if name is not None:
        context.load_cert_chain(files / f"{name}.crt", files / f"{name}.key")
    return context


def healthy(agent: Guarded, context: ssl.SSLContext) -> bool:
    """Whether a client gets an answer; with TLS 1.3 it learns only then that it does not."""
    try:
        with agent.tls(context) as client:
            client.sendall(REQUEST)
            return client.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@pytest.mark.parametrize("policy", ["RequireAndVerifyClientCert", "VerifyClientCertIfGiven"])
def test_client_certificates(policy: str, files: Path) -> None:
    text = TLS.replace("{", f"{{client_auth_type: {policy}, client_ca_file: ca.crt, ")
    (files / "clients.yml").write_text(text)
    flags = ("--web-config-file", str(files / "clients.yml"))
    with Guarded(*flags, context=shows(files, "client")) as agent:
        assert healthy(agent, shows(files, "client"))
        assert not healthy(agent, shows(files, "stranger"))
        assert healthy(agent, shows(files, None)) == (policy == "VerifyClientCertIfGiven")
        assert healthy(agent, shows(files, "client"))


@pytest.fixture
def rotating(files: Path, tmp_path: Path) -> Path:
    """Files that are links to links into a directory, as Kubernetes mounts a secret."""
    for number, name in enumerate(("one", "two")):
        data = tmp_path / f"..{number}"
        data.mkdir()
        shutil.copy(files / f"{name}.crt", data / "tls.crt")
        shutil.copy(files / f"{name}.key", data / "tls.key")
        (data / "web.yml").write_text(
            f"tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\n{USERS}"
        )
    (tmp_path / "..data").symlink_to("..0")
    for file in ("tls.crt", "tls.key", "web.yml"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    return tmp_path


def point(directory: Path, number: int) -> None:
    """Has the links show to the other files, in one moment."""
    (directory / "..tmp").symlink_to(f"..{number}")
    os.rename(directory / "..tmp", directory / "..data")  # noqa: PTH104


def shown(agent: Guarded) -> str:
    with agent.tls() as client:
        return organization(client)


def test_a_new_certificate_costs_no_scrape(rotating: Path) -> None:
    agent = Guarded("--web-config-file", str(rotating / "web.yml"), context=authority().context())
    failed: list[str] = []
    count = 0
    done = threading.Event()

    def scrape() -> None:
        nonlocal count
        while not done.is_set():
            try:
                assert agent.get("/metrics", authorization=ALICE).status == 200
                count += 1
            except Exception as error:
                failed.append(repr(error))

    def hesitate() -> None:
        while not done.is_set():
            raw = agent.connect()
            time.sleep(0.4)  # the handshake comes when the server may have become another
            try:
                with authority().context().wrap_socket(raw, server_hostname=agent.host) as client:
                    client.sendall(REQUEST)
                    assert client.recv(4096).startswith(b"HTTP/1.1 200")
            except Exception as error:
                failed.append(repr(error))

    with agent:
        threads = [threading.Thread(target=target) for target in (scrape, hesitate, hesitate)]
        for thread in threads:
            thread.start()
        kept = agent.connection()
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        try:
            for number in (1, 0, 1):
                point(rotating, number)
                wait_for(lambda n=number: shown(agent) == ("one", "two")[n], "it is shown")
            before = count
            wait_for(lambda: count > before + 5, "more scrapes", PATIENCE)
            kept.request("GET", "/healthz")  # on the first certificate's connection
            assert kept.getresponse().read() == b"ok\n"
        finally:
            done.set()
            for thread in threads:
                thread.join()
            kept.close()
        assert failed == []
        assert count > 5
        code, seconds = agent.end()
        assert code == 0
        assert seconds < 5
    assert "Traceback" not in agent.log


def test_broken_files_change_nothing_and_are_named_once(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    with guarded(tmp_path, TLS + USERS) as agent:
        assert shown(agent) == "one"

        def complaints() -> int:
            return agent.log.count("stays in force")

        def breaks(file: str, data: bytes) -> None:
            before = complaints()
            (tmp_path / file).write_bytes(data)
            wait_for(lambda: complaints() == before + 1, f"a complaint of {file}")
            assert shown(agent) == "one"
            assert agent.get(authorization=ALICE).status == 200
            assert agent.get().status == 401

        good = {name: (tmp_path / name).read_bytes() for name in ("one.crt", "one.key", "web.yml")}
        breaks("one.crt", b"garbage")
        breaks("one.crt", (tmp_path / "two.crt").read_bytes())  # not this key's
        breaks("web.yml", b"basic_auth_users: [")
        breaks("web.yml", b"tls_server_config: {cert_file: late.crt, key_file: two.key}")
        time.sleep(1.5)
        assert complaints() == 4
        # A file that was missing is noticed when it comes.
        (tmp_path / "late.crt").write_bytes((tmp_path / "two.crt").read_bytes())
        wait_for(lambda: shown(agent) == "two", "the new one is shown")
        for name, data in good.items():
            (tmp_path / name).write_bytes(data)
        wait_for(lambda: shown(agent) == "one", "the old one is shown again")
        assert agent.get().status == 401


def test_what_granian_would_die_of_is_refused(files: Path, tmp_path: Path) -> None:
    """A curve that OpenSSL knows, and the server's library does not."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    import datetime as dt

    now = dt.datetime.now(dt.timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with guarded(tmp_path, TLS) as agent:
        (tmp_path / "one.key").write_bytes(secret)
        (tmp_path / "one.crt").write_bytes(pem)
        wait_for(lambda: "the TLS library refuses it" in agent.log, "it is refused")
        assert shown(agent) == "one"
    done = run("--web-config-file", str(tmp_path / "web.yml"), "--listen-address", "127.0.0.1:1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "P-384" in done.stderr


def test_users_and_tokens_change_while_it_runs(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    with guarded(tmp_path, "") as agent:
        assert agent.get("/readyz").status == 200
        (tmp_path / "web.yml").write_text(USERS)
        wait_for(lambda: agent.get("/readyz").status == 401, "it asks for credentials")
        assert agent.get("/readyz", authorization=ALICE).status == 200
        (tmp_path / "web.yml").write_text(
            "bearer_token_file: token\n" + USERS.replace("bob", "eve")
        )
        token = f"Bearer {TOKEN}"
        wait_for(lambda: agent.get("/readyz", authorization=token).status == 200, "a token counts")
        assert agent.get("/readyz", authorization=ALICE).status == 200
        assert agent.get("/readyz", authorization=basic("bob", "other")).status == 401
        (tmp_path / "token").write_text(TOKEN[::-1])
        wait_for(lambda: agent.get("/readyz", authorization=token).status == 401, "another counts")
        (tmp_path / "web.yml").write_text(TLS)
        agent.context = authority().context()
        wait_for(agent.ready, "TLS is on")
        assert agent.get("/readyz").status == 200


def test_a_flood_of_wrong_passwords_stops_neither_scrapes_nor_probes(files: Path) -> None:
    slow = f"basic_auth_users: {{alice: {stored('right', 11)}}}\n"
    with guarded(files, slow, "slow.yml") as agent:
        assert agent.get(authorization=ALICE).status == 200
        statuses: set[int] = set()
        done = threading.Event()

        def flood(number: int) -> None:
            client = http.client.HTTPConnection(agent.host, agent.port, timeout=60)
            while not done.is_set():
                wrong = basic("alice", f"{number} {time.monotonic()}")
                client.request("GET", "/metrics", headers={"Authorization": wrong})
                response = client.getresponse()
                response.read()
                statuses.add(response.status)
                time.sleep(0.02)
            client.close()

        threads = [threading.Thread(target=flood, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: 429 in statuses, "there are too many")
            for _ in range(20):
                assert agent.get(authorization=ALICE, timeout=5).status == 200
                assert agent.get("/healthz", timeout=5).status == 200
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert statuses <= {401, 429}
        assert agent.log.count("without valid credentials") <= 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tls_server_config: {cert_file: no.crt, key_file: one.key}", ["no.crt", "No such file"]),
        ("basic_auth_user: {}", ["closest is basic_auth_users"]),
        ("a: [", ["invalid YAML"]),
    ],
)
def test_an_agent_does_not_start_with_a_wrong_file(
    text: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "web.yml").write_text(text)
    done = run("--web-config-file", str(tmp_path / "web.yml"), *STILL)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def test_without_the_file_nothing_of_it_is_loaded() -> None:
    with Agent(*STILL) as agent:
        mapped = Path(f"/proc/{agent.process.pid}/maps").read_text()
        assert agent.get().headers["x-content-type-options"] == "nosniff"
    assert "_granian" in mapped
    assert not any(name in mapped for name in ("/_bcrypt.", "/_yaml."))


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_credentials_without_tls_are_warned_of_where_others_can_see_them(
    host: str, warned: bool, files: Path
) -> None:
    (files / "plain.yml").write_text(USERS)
    with Guarded("--web-config-file", str(files / "plain.yml"), host=host) as agent:
        pass
    assert ("unencrypted" in agent.log) == warned
