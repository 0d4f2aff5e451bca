"""The client of the commands: addresses, credentials, TLS, and who may answer for an agent."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from esnode import client
from esnode.client import Client, NoAnswer, Refused, Target, target
from esnode.config import Config, ConfigError

from .peers import BROKEN, HUNG, Act, endless, page, peer, request, says, silent
from .pki import authority
from .running import environment, free_port


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.0.0.0:9100", Target("127.0.0.1", 9100)),
        (":9100", Target("127.0.0.1", 9100)),
        ("[::]:9100", Target("::1", 9100)),
        ("[0:0::0]:9100", Target("::1", 9100)),
        ("[::1]:9100", Target("::1", 9100)),
        ("127.0.0.2:80", Target("127.0.0.2", 80)),
        ("localhost:1", Target("localhost", 1)),
        ("gpu-node-01:9100", Target("gpu-node-01", 9100)),
        ("unix:/run/esnode.sock", Target("localhost", unix="/run/esnode.sock")),
        ("http://gpu-node-01", Target("gpu-node-01", 9100)),
        ("https://gpu-node-01/", Target("gpu-node-01", 9100, secure=True)),
        ("https://[::]:443", Target("::1", 443, secure=True)),
        ("http://[fe80::1]:80", Target("fe80::1", 80)),
    ],
)
def test_where_an_address_leads(text: str, wanted: Target) -> None:
    assert target(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "9100",
            "host",
            "host:0",
            "host:65536",
            "::1:9100",
            "unix:run/x",
            "unix:",
            "unix:/\0",
        ),
        *("ftp://host", "http://", "http://host/metrics", "http://host?x", "http://host:port"),
        *("http://user:hunter2@host", "http://hunter2@host:9100", "http://[::1", "http://a b"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        target(text)
    assert "hunter2" not in str(caught.value)


def test_what_is_shown_of_a_target() -> None:
    assert target("[::]:9100").shown == "[::1]:9100"
    assert target("unix:/x").shown == "unix:/x"
    assert target("http://localhost").shown == "localhost:9100"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_page_and_what_was_asked_for(host: str) -> None:
    asked = []

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked.append(request(connection).decode())
        connection.sendall(page(b"body"))

    with peer(act, host) as address:
        assert Client(target(address), {}).get("/status") == b"body"
        lines = asked[0].split("\r\n")
        assert lines[0] == "GET /status HTTP/1.1"
        assert f"Host: {address}" in lines
        assert "Connection: close" in lines
        assert not any(line.lower().startswith("authorization") for line in lines)
        assert Client(target(address), {client.TOKEN: "hunter2"}).get("/") == b"body"
        assert "Authorization: Bearer hunter2" in asked[1].split("\r\n")
        assert Client(target(address), {client.USER: "joe:a:b"}).get("/") == b"body"
        basic = base64.b64encode(b"joe:a:b").decode()
        assert f"Authorization: Basic {basic}" in asked[2].split("\r\n")


def test_a_unix_socket_and_localhost(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with peer(says(page(b"body")), unix=path) as address:
        assert Client(target(address), {}).get("/") == b"body"
    with pytest.raises(NoAnswer, match="no agent answers on unix:"):
        Client(target(f"unix:{path}"), {}).get("/")
    with peer(says(page(b"body"))) as address:
        port = address.rpartition(":")[2]
        assert Client(target(f"localhost:{port}"), {}).get("/") == b"body"
    with pytest.raises(NoAnswer):
        Client(target(f"unix:/{'x' * 200}"), {}).get("/")


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody",
    ],
)
def test_other_forms_of_an_answer(body: bytes) -> None:
    with peer(says(body)) as address:
        assert Client(target(address), {}).get("/") == b"body"


def one_line(caught: pytest.ExceptionInfo[NoAnswer]) -> str:
    text = str(caught.value)
    assert text.isprintable()
    return text


@pytest.mark.parametrize("act", [*HUNG.values()], ids=[*HUNG])
def test_a_server_that_takes_its_time_costs_only_the_limit(
    act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.3)
    with peer(act) as address:
        start = time.monotonic()
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.3 s") as caught:
            Client(target(address), {}).get("/")
        assert time.monotonic() - start < 2
        assert address in one_line(caught)


def test_a_body_without_an_end_costs_only_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LARGEST", 4 << 20)
    with peer(endless) as address, pytest.raises(NoAnswer, match="more than 4 MiB"):
        Client(target(address), {}).get("/")


def test_a_connection_that_is_not_taken_costs_only_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "CONNECT", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):  # its queue is full
            port = listener.getsockname()[1]
            with pytest.raises(NoAnswer, match=r"did not take the connection within 0\.3 s"):
                Client(target(f"127.0.0.1:{port}"), {}).get("/")


def test_a_name_that_is_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT", 0.2)
    hung = threading.Event()

    def look(*_: object, **__: object) -> list[object]:
        hung.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    with pytest.raises(NoAnswer, match=r"gpu-node-01: cannot be looked up \(not within 0\.2 s\)"):
        Client(target("gpu-node-01:9100"), {}).get("/")
    hung.set()


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "nonsense"])
def test_an_answer_that_is_broken_is_one_line(name: str) -> None:
    with peer(BROKEN[name]) as address, pytest.raises(NoAnswer) as caught:
        Client(target(address), {}).get("/")
    text = one_line(caught)
    assert address in text
    if name == "tls":
        assert "https://" in text


def test_nobody_is_there() -> None:
    with pytest.raises(NoAnswer, match=r"no agent answers on 127\.0\.0\.1.*--listen-address"):
        Client(target(f"127.0.0.1:{free_port()}"), {}).get("/")


def test_a_refusal_says_what_to_do_and_repeats_no_secret() -> None:
    secret = {client.TOKEN: "hunter2"}
    with peer(says(page(b"no", "401 Unauthorized"))) as address:
        with pytest.raises(Refused, match=client.TOKEN) as caught:
            Client(target(address), secret).get("/status")
        assert caught.value.status == 401
        assert "hunter2" not in one_line(caught)
    with peer(says(page(b"not found; see / for what there is\nmore", "404 Not Found"))) as address:
        with pytest.raises(Refused, match="/status with 404 not found; see /") as caught:
            Client(target(address), {}).get("/status?x=y")
        assert "more" not in one_line(caught)


@pytest.mark.parametrize(
    "environ",
    [
        {client.TOKEN: "hunter2", client.USER: "joe:hunter2"},
        {client.TOKEN: "hunter2\r\nx: y"},
        {client.TOKEN: "hünter2"},
        {client.USER: "hunter2"},
        {client.USER: "joe:hunter2\n"},
    ],
)
def test_credentials_that_cannot_be_used(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="ESNODE_CLIENT_") as caught:
        Client(target("127.0.0.1:9100"), environ)
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize("variable", [client.CA, client.CERT])
def test_certificates_that_cannot_be_used(variable: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for path in ("/no/such.pem", str(tmp_path / "bad.pem"), str(tmp_path)):
        with pytest.raises(ConfigError, match=f"{variable}: {path}"):
            Client(target("https://localhost"), {variable: path})


def test_tls_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(connection: socket.socket, stop: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(page(b"what?", "400 Bad Request"))

    with peer(plain) as address, pytest.raises(NoAnswer) as caught:
        Client(target(f"https://{address}"), {}).get("/")
    assert "http://" in one_line(caught)
    alert = says(b"\x15\x03\x03\x00\x02\x02\x32")  # what TLS says to a request in plain text
    with peer(alert) as address, pytest.raises(NoAnswer) as caught:
        Client(target(address), {}).get("/")
    assert one_line(caught).startswith(f"the agent on {address} speaks TLS: ")
    monkeypatch.setattr(client, "CONNECT", 0.3)
    with peer(silent) as address, pytest.raises(NoAnswer, match="connection within"):
        Client(target(f"https://{address}"), {}).get("/")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate and its authority's, a client's, and a web configuration."""
    directory = tmp_path_factory.mktemp("web")
    authority().server("one").write(directory, "one")
    authority("others").server("two").write(directory, "two")
    us = authority().client("us")
    us.write(directory, "us")
    (directory / "us.pem").write_bytes(
        (directory / "us.crt").read_bytes() + (directory / "us.key").read_bytes()
    )
    (directory / "ca.crt").write_bytes(authority().certificate)
    (directory / "token").write_text("0123456789abcdef0123456789abcdef\n")
    (directory / "web.yml").write_text(
        "tls_server_config: {cert_file: one.crt, key_file: one.key}\nbearer_token_file: token\n"
    )
    return directory


def served(files: Path, name: str = "one", asks: bool = False) -> ssl.SSLContext:
    """A server's side of TLS; ``asks`` for the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / f"{name}.crt", files / f"{name}.key")
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files / "ca.crt")
    return context


def test_tls_with_an_authority(files: Path) -> None:
    with peer(says(page(b"body")), tls=served(files)) as address:
        url = f"https://{address}"
        trusting = {client.CA: str(files / "ca.crt")}
        assert Client(target(url), trusting).get("/") == b"body"
        with pytest.raises(
            NoAnswer, match=r"certificate.*not accepted.*ESNODE_CLIENT_CA"
        ) as caught:
            Client(target(url), {}).get("/")
        one_line(caught)
    with (
        peer(says(page(b"body")), tls=served(files, "two")) as address,
        pytest.raises(NoAnswer, match="not accepted"),
    ):
        Client(target(f"https://{address}"), trusting).get("/")


def test_tls_that_asks_who_we_are(files: Path) -> None:
    with peer(says(page(b"body")), tls=served(files, asks=True)) as address:
        url, environ = f"https://{address}", {client.CA: str(files / "ca.crt")}
        assert (
            Client(target(url), {**environ, client.CERT: str(files / "us.pem")}).get("/") == b"body"
        )
        with pytest.raises(NoAnswer, match=client.CERT) as caught:
            Client(target(url), environ).get("/")
        one_line(caught)


def test_who_may_read_the_web_configuration_needs_nothing_else(files: Path) -> None:
    """It is the agent's own certificate that is trusted, whatever it is called, and no other."""
    asked = []

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked.append(request(connection).decode())
        connection.sendall(page(b"body"))

    path = str(files / "web.yml")
    with peer(act, tls=served(files)) as address:
        config = Config(listen_address=address, web_config_file=path)
        assert client.local(config, {}).get("/") == b"body"
        assert "Authorization: Bearer 0123456789abcdef" in asked[0]
        assert client.local(config, {client.USER: "joe:x"}).get("/") == b"body"
        assert "Authorization: Basic" in asked[1]
    with peer(act, tls=served(files, "two")) as address, pytest.raises(NoAnswer, match="accepted"):
        client.local(Config(listen_address=address, web_config_file=path), {}).get("/")


def test_a_web_configuration_that_is_not_ours_to_read_is_named() -> None:
    with peer(says(page(b"no", "401 Unauthorized"))) as address:
        config = Config(listen_address=address, web_config_file="/no/such/web.yml")
        with pytest.raises(Refused, match=r"not for us to read: /no/such/web\.yml") as caught:
            client.local(config, {}).get("/")
        one_line(caught)


STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    b"retry: 1500\n\n: hello\n\nid: 7\nevent: gpu\ndata: {}\n\nid: 8\r\ndata: a\r\ndata: b\r\n\r\n"
    b"event: empty\n\ndata:tail\n\nid: x\ndata: [1]\n\ndata: lost"
)


def test_events_and_their_ids() -> None:
    asked = []

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked.append(request(connection).decode())
        connection.sendall(STREAM + b"\n")

    with peer(act) as address:
        agent = Client(target(address), {})
        assert [tuple(each) for each in agent.events("/events", "5")] == [
            ("7", "gpu", b"{}"),
            ("8", "message", b"a\nb"),
            ("8", "message", b"tail"),
            ("8", "message", b"[1]"),
        ]
        assert agent.retry == 1500
    assert "Last-Event-ID: 5" in asked[0].split("\r\n")
    assert "Accept: text/event-stream" in asked[0].split("\r\n")


def test_a_stream_without_sense_or_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE", 0.2)
    monkeypatch.setattr(client, "LINE", 1000)
    for act in (silent_stream, drips_line):
        with peer(act) as address, pytest.raises(NoAnswer):
            list(Client(target(address), {}).events("/events"))
    monkeypatch.setattr(client, "ANSWER", 0.2)
    with peer(silent) as address, pytest.raises(NoAnswer):
        list(Client(target(address), {}).events("/events"))


def silent_stream(connection: socket.socket, stop: threading.Event) -> None:
    request(connection)
    connection.sendall(STREAM)
    stop.wait(30)


def drips_line(connection: socket.socket, stop: threading.Event) -> None:
    request(connection)
    connection.sendall(STREAM)
    while not stop.is_set():
        connection.sendall(b"x" * 100)


def test_a_stream_may_last_longer_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.1)

    def act(connection: socket.socket, stop: threading.Event) -> None:
        request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(5):
            stop.wait(0.05)
            connection.sendall(b"data: {}\n\n")

    with peer(act) as address:
        assert len(list(Client(target(address), {}).events("/events"))) == 5


def test_the_answer_is_given_whole_however_it_comes() -> None:
    def act(connection: socket.socket, stop: threading.Event) -> None:
        request(connection)
        for byte in page(b"body"):
            connection.sendall(bytes([byte]))

    with peer(act) as address:
        assert Client(target(address), {}).get("/") == b"body"


def test_the_daemon_has_none_of_this_and_knows_the_variables() -> None:
    """The commands cost the daemon no memory, and their variables no warning."""
    program = (
        "import sys, esnode.__main__, esnode.agent, esnode.config as c\n"
        "environ = {'ESNODE_CLIENT_TOKEN': 'a', 'ESNODE_CONFIG': '/dev/null'}\n"
        "found = c.load(c.parse_arguments([]), environ)\n"
        "assert not found.warnings, found.warnings\n"
        "print(*(n for n in sys.modules if n.startswith(('esnode.cli', 'esnode.client', 'typer'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("command", ["status", "check", "metrics", "events"])
def test_a_command_loads_nothing_heavy(command: str) -> None:
    """No collector, server or history: it is to be done in a quarter of a second."""
    program = (
        "import sys\n"
        "from esnode.__main__ import main\n"
        f"code = main(['{command}', '--url', 'unix:/no/such.sock'])\n"
        "heavy = ('esnode._fast', 'esnode.collectors', 'esnode.http', 'esnode.tsdb', 'granian',"
        " 'zstandard', 'isal', 'yaml', 'tomlkit', 'asyncio', 'prompt_toolkit', 'rich')\n"
        "print(*(name for name in sys.modules if name.startswith(heavy)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "", done.stderr
