"""The real agent and its server: many clients, bad clients, hung sources, signals."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from isal import isal_zlib

from .running import PATIENCE, Agent, free_port, run, series, wait_for

SWITCHES = "esnode_cpu_context_switches_total"
READYZ = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
PAGE = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
#: Nothing ticks and nothing gets too old: what is read at the start stays.
STILL = ("--scrape-interval", "1h", "--scrape-max-age", "1h")


@pytest.fixture(scope="module")
def still() -> Iterator[Agent]:
    with Agent(*STILL) as agent:
        yield agent


def test_the_formats_and_encodings_are_of_one_snapshot(still: Agent) -> None:
    plain = still.get()
    assert plain.status == 200
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert series(plain.body)[SWITCHES] > 0
    gzip = still.get(accept_encoding="gzip")
    zstd = still.get(accept_encoding="gzip, zstd")
    assert (gzip.headers["content-encoding"], zstd.headers["content-encoding"]) == ("gzip", "zstd")
    assert isal_zlib.decompress(gzip.body, wbits=31) == plain.body
    assert zstandard.ZstdDecompressor().decompress(zstd.body) == plain.body
    assert len(gzip.body) < len(plain.body) / 2
    openmetrics = still.get(accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text;")
    assert openmetrics.body.endswith(b"\n# EOF\n")
    assert series(openmetrics.body)[SWITCHES] == series(plain.body)[SWITCHES]


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nope"])
def test_head_is_get_without_the_body(path: str, still: Agent) -> None:
    get = still.get(path, accept_encoding="gzip")
    head = still.get(path, "HEAD", accept_encoding="gzip")
    assert head.body == b""
    assert head.status == get.status
    assert head.headers["content-length"] == str(len(get.body))
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("content-encoding") == get.headers.get("content-encoding")


def test_the_index_and_refusals(still: Agent) -> None:
    assert 'href="metrics"' in still.get("/").body.decode()
    assert still.get("/nope").status == 404
    refused = still.get("/metrics", "POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    wrong = still.get("/metrics?collect[]=nope")
    assert wrong.status == 400
    assert b"memory" in wrong.body


def test_a_connection_is_kept(still: Agent) -> None:
    connection = http.client.HTTPConnection(still.host, still.port, timeout=PATIENCE)
    connection.connect()
    kept = connection.sock
    for method, path in [("GET", "/metrics"), ("HEAD", "/metrics"), ("GET", "/nope"), ("GET", "/")]:
        connection.request(method, path)
        connection.getresponse().read()
    assert connection.sock is kept
    connection.close()


def test_requests_are_answered_in_order(still: Agent) -> None:
    wanted = [("/metrics", b"200"), ("/nope", b"404"), ("/metrics?collect[]=x", b"400")] * 30
    with still.connect() as client, client.makefile("rb") as stream:
        for path, _ in wanted:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = stream.read()
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", text)
    assert statuses == [status for _, status in wanted] + [b"200"]


def test_ipv6() -> None:
    try:
        free_port("::1")
    except OSError:
        pytest.skip("this machine has no [::1]")
    with Agent(host="::1") as agent:
        assert agent.get().status == 200
        assert agent.address.startswith("[::1]:")
        assert agent.address in agent.log


def test_a_second_instance_names_the_address(still: Agent) -> None:
    done = run("--listen-address", still.address)
    assert done.returncode == 1
    assert still.address in done.stderr
    assert "Traceback" not in done.stderr
    assert still.get().status == 200


def test_of_two_that_start_together_one_serves() -> None:
    for _ in range(4):
        first = Agent(*STILL)
        with contextlib.ExitStack() as stack:
            second = Agent(*STILL, port=first.port)
            both = [first, second]
            for agent in both:
                stack.callback(agent.__exit__)
            wait_for(
                lambda both=both: any(agent.process.poll() is not None for agent in both),
                "one of them has given up",
                3,
            )
            (code,) = {agent.process.poll() for agent in both} - {None}
            assert code == 1
            (server,) = (agent for agent in both if agent.process.poll() is None)
            wait_for(server.ready, "the other is ready")


# None of these is looked up in the network: the first is a number, the others no names.
@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "a" * 70])
def test_an_address_that_cannot_be_had(host: str) -> None:
    done = run("--listen-address", f"{host}:9100")
    assert done.returncode in (1, 2)
    assert f"{host}:9100" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_restart_on_the_same_port() -> None:
    with Agent(*STILL) as agent, agent.connect() as client:
        client.sendall(READYZ)
        assert client.recv(4096)
        # The server closes first, so the connection stays in TIME_WAIT.
        assert agent.end()[0] == 0
        with Agent(*STILL, port=agent.port) as next_agent:
            assert next_agent.get().status == 200


def half_open(agent: Agent) -> socket.socket:
    """A client that never finishes its header."""
    client = agent.connect()
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept:")
    return client


def idle(agent: Agent) -> socket.socket:
    """A client that keeps its connection after an answer."""
    client = agent.connect()
    client.sendall(READYZ)
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    return client


def slow(agent: Agent) -> socket.socket:
    """A client that asks for much more than fits into the socket's buffers, and does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.settimeout(PATIENCE)
    client.connect((agent.host, agent.port))
    client.sendall(PAGE * 100)
    return client


Kind = Callable[[Agent], socket.socket]


@contextlib.contextmanager
def clients(agent: Agent, *kinds: tuple[int, Kind]) -> Iterator[list[socket.socket]]:
    """So many clients of each kind, once the agent has nothing left to do for them."""
    with contextlib.ExitStack() as stack:
        connected = [
            stack.enter_context(kind(agent)) for count, kind in kinds for _ in range(count)
        ]
        stat = Path(f"/proc/{agent.process.pid}/stat")
        before = ""
        while before != (now := " ".join(stat.read_text().split()[13:15])):
            before = now
            time.sleep(0.05)
        yield connected


def is_open(client: socket.socket) -> bool:
    """Whether the server has not hung up."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for over a thousand sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4000:
        pytest.skip(f"only {hard} descriptors may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_a_second_with_clients_connected(number: signal.Signals) -> None:
    with Agent() as agent, clients(agent, (17, idle), (17, half_open), (16, slow)) as connected:
        assert sum(map(is_open, connected)) == 50
        code, seconds = agent.end(number)
        assert code == 0
        assert seconds < 1
        assert "Traceback" not in agent.log


def test_signals_on_signals_end_it_with_code_0() -> None:
    with Agent() as agent:
        for number in (signal.SIGTERM, signal.SIGINT) * 5:
            if agent.process.poll() is None:
                agent.process.send_signal(number)
            time.sleep(0.005)
        assert agent.process.wait(2) == 0
        assert "Traceback" not in agent.log


def test_a_hangup_does_not_end_it() -> None:
    with Agent() as agent:
        agent.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert agent.get().status == 200


def slowest_scrape(agent: Agent, count: int) -> float:
    """The longest of some scrapes, each on a connection of its own, in seconds."""
    longest = 0.0
    for _ in range(count):
        start = time.perf_counter()
        answer = agent.get()
        longest = max(longest, time.perf_counter() - start)
        assert answer.status == 200
    return longest


@pytest.mark.parametrize("age", ["1", "0"])
def test_useless_clients_delay_no_scrape(age: str, many_descriptors: None) -> None:
    for attempt in range(2):
        with (
            Agent("--scrape-max-age", age) as agent,
            clients(agent, (50, slow), (500, idle), (500, half_open)) as connected,
        ):
            longest = slowest_scrape(agent, 100)
            still_there = sum(map(is_open, connected))
        print(f"the slowest of 100 scrapes beside {still_there} clients: {longest * 1000:.1f} ms")
        if longest < 0.05 and still_there == 1050:
            return
        assert attempt == 0, f"{longest * 1000:.1f} ms beside {still_there} clients"


def test_a_fresh_reading_for_each_scrape_with_age_0() -> None:
    with Agent("--scrape-interval", "1h", "--scrape-max-age", "0") as agent:
        readings = [agent.series()[SWITCHES] for _ in range(5)]
    assert readings == sorted(set(readings))


def test_no_reading_within_the_maximum_age() -> None:
    with Agent("--scrape-interval", "1h", "--scrape-max-age", "1") as agent:
        for attempt in range(2):
            start = time.monotonic()
            first, second = agent.get(), agent.get()
            if time.monotonic() - start < 0.5 and first.body == second.body:
                break
            assert attempt == 0  # the first reading may have got too old between the two
        time.sleep(1.1)
        third = agent.series()
    assert third[SWITCHES] > series(second.body)[SWITCHES]


def test_scrapers_at_the_same_time_get_the_same_fresh_page() -> None:
    with Agent("--scrape-interval", "1h", "--scrape-max-age", "0") as agent:
        pages: list[dict[str, float]] = []
        threads = [
            threading.Thread(target=lambda: pages.extend(agent.series() for _ in range(20)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pages) == 160
        assert len({len(page) for page in pages}) == 1
        assert max(page["esnode_agent_scrapes_total"] for page in pages) == 160


def test_the_times_on_the_page_are_unix_times() -> None:
    before = time.time()
    with Agent() as agent:
        after = time.time()
        time.sleep(0.5)
        page = agent.series()
    assert before - 1 < page["esnode_agent_start_time_seconds"] < after
    assert before - 1 < page["esnode_node_time_seconds"] < time.time()


GARBAGE = [
    b"\0\xff\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"GET http://[/metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /metrics?collect[]=\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /metrics?" + b"collect[]=x&" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: \xff\r\nAccept-Encoding: \xff\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Prometheus-Scrape-Timeout-Seconds: \xff\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\nabc",
    b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
]


def send(agent: Agent, request: bytes) -> bytes:
    """The beginning of the answer to a request; empty where the server hangs up."""
    with agent.connect() as client:
        try:
            client.sendall(request)
            return client.recv(4096)
        except ConnectionError:
            return b""


def test_garbage_and_oversized_requests_are_refused() -> None:
    with Agent() as agent:
        agent.get()
        descriptors = agent.descriptors
        for request in GARBAGE:
            answer = send(agent, request)
            assert re.match(rb"HTTP/1\.[01] (200|4\d\d) |$", answer), (request[:60], answer)
            assert agent.get().status == 200
        wait_for(lambda: agent.descriptors <= descriptors, "the connections are closed")
        log = agent.log
    assert "Traceback" not in log
    assert "ERROR" not in log


def ask(agent: Agent, requests: list[str]) -> None:
    """Sends requests on one connection; reads the answers as they come."""
    with agent.connect() as client:
        answers: list[bytes] = []
        reader = threading.Thread(
            target=lambda: answers.extend(iter(lambda: client.recv(1 << 20), b""))
        )
        reader.start()
        for request in requests:
            client.sendall(request.encode())
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        reader.join(PATIENCE)
        assert not reader.is_alive()
    assert len(re.findall(rb"HTTP/1\.1 [24]\d\d ", b"".join(answers))) == len(requests) + 1


def odd(number: int) -> str:
    """A request that differs from the others wherever something could be remembered."""
    path = (f"/{number}", f"/metrics?collect[]={number}", f"/%00{number}%ff", "/metrics")[
        number % 4
    ]
    return (
        f"GET {path} HTTP/1.1\r\nHost: {number}\r\nAccept: text/{number}\r\n"
        f"Accept-Encoding: gzip;q=0.{number}\r\n"
        f"X-Prometheus-Scrape-Timeout-Seconds: {number}\r\n\r\n"
    )


def test_memory_stays_over_10_000_odd_requests() -> None:
    with Agent(*STILL) as agent:
        ask(agent, [odd(number) for number in range(2000)])
        before = agent.memory
        ask(agent, [odd(number) for number in range(2000, 12_000)])
        grown = agent.memory - before
        print(f"grown by {grown / 1e6:.1f} MB")
        assert agent.get().status == 200
    assert grown < 4e6


def test_memory_stays_over_long_headers() -> None:
    with Agent(*STILL) as agent:
        ask(agent, [odd(number) for number in range(2000)])
        before = agent.memory
        names = ("Accept", "Accept-Encoding", "X-Prometheus-Scrape-Timeout-Seconds")
        for number in range(200):
            text = str(number).rjust(90_000, "a")
            headers = "".join(f"{name}: {text}\r\n" for name in names)
            ask(agent, [f"GET /metrics HTTP/1.1\r\nHost: a\r\n{headers}\r\n"])
        grown = agent.memory - before
        print(f"grown by {grown / 1e6:.1f} MB")
        assert agent.get().status == 200
    assert grown < 16e6


class Fuse:
    """A directory mounted once more by a daemon that can be stopped."""

    def __init__(self, folder: Path) -> None:
        self.source, self.mount = folder / "source", folder / "mount"
        self.source.mkdir()
        self.mount.mkdir()

    def __enter__(self) -> Fuse:
        self.daemon = subprocess.Popen(
            ["bindfs", "-f", str(self.source), str(self.mount)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(
            lambda: self.mount.is_mount() or self.daemon.poll() is not None,
            "the directory is mounted",
            5,
        )
        if self.daemon.poll() is not None:
            pytest.skip("bindfs cannot mount here")
        return self

    def hang(self) -> None:
        self.daemon.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.daemon.send_signal(signal.SIGCONT)

    def __exit__(self, *unused: object) -> None:
        self.wake()
        subprocess.run(["umount", "--lazy", str(self.mount)], check=False)
        try:
            self.daemon.wait(2)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Fuse]:
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("a mount that hangs takes bindfs and /dev/fuse")
    with Fuse(tmp_path) as mounted:
        yield mounted


class Scraper:
    """Scrapes, and remembers how long the slowest took."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.slowest = 0.0

    def __call__(self) -> dict[str, float]:
        start = time.monotonic()
        page = self.agent.series()
        self.slowest = max(self.slowest, time.monotonic() - start)
        return page


def of_mount(page: dict[str, float], family: str, mount: str) -> float | None:
    """The value of a mount in a family; None where there is none."""
    wanted = f'{family}{{mount="{mount}",'
    return next((value for name, value in page.items() if name.startswith(wanted)), None)


def test_a_mount_that_hangs_costs_its_own_rows_only(fuse: Fuse) -> None:
    total, timeout = "esnode_disk_total_bytes", "esnode_disk_mount_timeout"
    hung = str(fuse.mount)
    flags = ["--mount-timeout", "500ms", "--scrape-interval", "200ms", "--scrape-max-age", "0"]
    flags += ["--disk-mount-include", f"^(/|{re.escape(hung)})$", "--disk-fstype-exclude", ""]
    with Agent(*flags) as agent:
        scrape = Scraper(agent)
        page = scrape()
        assert of_mount(page, timeout, hung) == 0
        assert (of_mount(page, total, hung) or 0) > 0
        fuse.hang()
        wait_for(lambda: of_mount(scrape(), timeout, hung) == 1, "the mount is found hung", 3)
        first = scrape()
        assert of_mount(first, total, hung) is None
        assert of_mount(first, timeout, hung) == 1
        assert of_mount(first, timeout, "/") == 0
        assert (of_mount(first, total, "/") or 0) > 0
        time.sleep(0.1)
        second = scrape()
        assert second[SWITCHES] > first[SWITCHES]
        for lane in ("host", "mounts"):
            assert second[f'esnode_agent_snapshot_age_seconds{{lane="{lane}"}}'] < 0.5
        assert agent.get("/healthz").status == 200
        assert scrape.slowest < 0.2
        print(f"the slowest scrape beside a hung mount: {scrape.slowest * 1000:.1f} ms")

        fuse.wake()
        wait_for(lambda: of_mount(scrape(), total, hung) is not None, "its values are back", 5)
        assert of_mount(scrape(), timeout, hung) == 0

        fuse.hang()
        wait_for(lambda: of_mount(scrape(), timeout, hung) == 1, "the mount is found hung", 3)
        code, seconds = agent.end()
        assert code == 0
        assert seconds < 1

    with Agent(*flags) as late:  # it is no worse where the mount hangs from the start
        assert of_mount(late.series(), total, hung) is None
        assert (of_mount(late.series(), total, "/") or 0) > 0
        code, seconds = late.end()
        assert code == 0
        assert seconds < 1


def test_health_where_the_hosts_files_hang(fuse: Fuse) -> None:
    for name in ("stat", "meminfo", "loadavg", "uptime"):
        (fuse.source / name).write_bytes(Path("/proc", name).read_bytes())
    flags = ["--path-procfs", str(fuse.mount), "--scrape-interval", "200ms"]
    with Agent(*flags, "--disk-mount-include", "^/nothing$") as agent:
        assert agent.get("/healthz").status == 200
        assert "esnode_memory_total_bytes" in agent.series()
        fuse.hang()
        wait_for(lambda: agent.get("/healthz").status == 503, "health is lost", 6)
        assert b"host lane" in agent.get("/healthz").body
        scrape = Scraper(agent)
        wait_for(lambda: "esnode_memory_total_bytes" not in scrape(), "old values are gone", 3)
        assert scrape()['esnode_agent_snapshot_age_seconds{lane="host"}'] > 1
        assert scrape.slowest < 0.2
        fuse.wake()
        wait_for(lambda: agent.get("/healthz").status == 200, "health is back", 5)
        assert "esnode_memory_total_bytes" in agent.series()
