"""Credentials: who is let through, at what cost, and what is remembered. Without a server."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import bcrypt
import pytest

from esnode.http.access import REMEMBERED, WAITING_EACH, Access
from esnode.http.response import LONGEST, Refusal, Response
from esnode.web import Web
from tests.running import PATIENCE

TOKEN = "0123456789abcdef0123456789abcdef"
#: Passwords that the counting check below takes for right: those that are written in the "hash".
ALICE, BOB = b"hash of right", b"hash of other"


class Request(NamedTuple):
    headers: dict[str, str]
    client: str = "10.0.0.1:1234"
    path: str = "/metrics"
    query_string: str = ""
    method: str = "GET"


def basic(user: str, password: str | bytes) -> str:
    data = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(user.encode() + b":" + data).decode()


class Desk:
    """An ``Access`` whose checks of passwords are counted, and can be held up."""

    def __init__(self, **web: object) -> None:
        self.checked: list[tuple[bytes, bytes]] = []
        self.free = threading.Event()
        self.free.set()
        self.access = Access(Web(**web), self.verify)

    def verify(self, password: bytes, stored: bytes) -> bool:
        assert self.free.wait(PATIENCE)
        self.checked.append((password, stored))
        return stored.endswith(b" " + password)

    def start(self, header: str | None, client: str = "10.0.0.1:1") -> Callable[[], int]:
        """Asks; what is returned waits for the status, 200 or 401."""
        answered = threading.Event()
        statuses = []

        def respond(response: Response) -> None:
            statuses.append(response.status)
            answered.set()

        def go() -> None:
            statuses.append(200)
            answered.set()

        headers = {} if header is None else {"authorization": header}
        self.access.check(Request(headers, client), respond, go)

        def wait() -> int:
            assert answered.wait(PATIENCE)
            (status,) = statuses
            return status

        return wait

    def ask(self, header: str | None, client: str = "10.0.0.1:1") -> int:
        return self.start(header, client)()


@pytest.fixture
def desk() -> Desk:
    return Desk(users={"alice": ALICE, "bob": BOB}, tokens=(TOKEN, TOKEN[::-1]))


def test_right_credentials(desk: Desk) -> None:
    assert desk.ask(basic("alice", "right")) == 200
    assert desk.ask(basic("bob", "other")) == 200
    assert desk.ask(f"Bearer {TOKEN}") == 200
    assert desk.ask(f"bearer  {TOKEN[::-1]} ") == 200
    assert desk.ask(basic("alice", "right").replace("Basic", "BASIC")) == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"\xff:right").decode(),
        basic("alice", b"right\0"),
        basic("alice", "x" * LONGEST),
        "Bearer",
        "Bearer ",
        "Bearer " + TOKEN[:-1],
        "Bearer " + TOKEN + "0",
        "Bearer " + TOKEN.upper(),
        "Bearer " + TOKEN + ", Basic",
        "Bearer \udcff",
        "Digest " + TOKEN,
        TOKEN,
    ],
)
def test_what_is_no_credentials_costs_nothing(header: str | None, desk: Desk) -> None:
    assert desk.ask(header) == 401
    assert desk.checked == []


@pytest.mark.parametrize("user", ["alice", "bob", "nobody", "", "ålice", "a" * 500])
@pytest.mark.parametrize("password", ["wrong", "", "right of someone else", "x" * 200])
def test_a_wrong_password_costs_one_check_whoever_it_is_of(
    user: str, password: str, desk: Desk
) -> None:
    assert desk.ask(basic(user, password)) == 401
    assert len(desk.checked) == 1


def test_the_password_of_another_user_is_wrong_also_for_a_user_that_there_is_not(
    desk: Desk,
) -> None:
    for user in ["alice", *(f"nobody{number}" for number in range(20))]:
        assert desk.ask(basic(user, "other")) == 401
    # The same decoy each time for the same name.
    desk.checked.clear()
    for _ in range(5):
        desk.ask(basic("nobody", "wrong"))
    assert len(set(desk.checked)) == 1


def test_the_real_hash() -> None:
    stored = bcrypt.hashpw(b"right", bcrypt.gensalt(4))
    desk = Desk(users={"alice": stored})
    desk.access.verify = None
    assert desk.ask(basic("alice", "right")) == 200
    assert desk.ask(basic("alice", "wrong")) == 401
    assert desk.ask(basic("alice", "wrong" * 100)) == 401
    assert desk.ask(basic("nobody", "right")) == 401
    long = Desk(users={"alice": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))})
    long.access.verify = None
    assert long.ask(basic("alice", "x" * 72 + "ignored, as htpasswd does")) == 200


def test_a_hash_that_cannot_be_checked_lets_nobody_in(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(password: bytes, stored: bytes) -> bool:
        raise ValueError

    desk.access.verify = broken
    assert desk.ask(basic("alice", "right")) == 401
    assert "could not be checked" in caplog.text


def test_a_right_password_is_checked_once(desk: Desk) -> None:
    for _ in range(5):
        assert desk.ask(basic("alice", "right")) == 200
    assert len(desk.checked) == 1
    for _ in range(5):
        assert desk.ask(basic("alice", "wrong")) == 401
    assert len(desk.checked) == 6


def test_what_is_remembered_is_no_password_and_bounded(desk: Desk) -> None:
    desk.access.verify = lambda *_: True
    for number in range(REMEMBERED + 50):
        assert desk.ask(basic("alice", f"secret{number}")) == 200
    known = desk.access._known
    assert len(known) == REMEMBERED
    assert not any(b"secret" in key for key in known)


def test_a_password_that_was_changed_is_not_right_any_more(desk: Desk) -> None:
    header = basic("alice", "right")
    assert desk.ask(header) == 200
    desk.access.take(Web(users={"alice": ALICE}))
    assert desk.ask(header) == 200
    assert len(desk.checked) == 1  # it is still known
    desk.access.take(Web(users={"alice": b"hash of new"}))
    assert desk.ask(header) == 401
    assert desk.ask(basic("alice", "new")) == 200
    desk.access.take(Web(users={"bob": ALICE}))
    assert desk.ask(header) == 401
    desk.access.take(Web(tokens=(TOKEN,)))
    assert desk.ask(header) == 401
    assert desk.ask(f"Bearer {TOKEN}") == 200


def test_a_refusal_names_the_ways_in() -> None:
    both = Desk(users={"alice": ALICE}, tokens=(TOKEN,)).access.rules.refusal
    challenges = [text for name, text in both.headers if name == "www-authenticate"]
    assert [text.split()[0] for text in challenges] == ["Bearer", "Basic"]
    one = Desk(users={"alice": ALICE}).access.rules.refusal
    assert [text for name, text in one.headers if name == "www-authenticate"] == challenges[1:]


@pytest.fixture
def flooded(desk: Desk) -> Iterator[Desk]:
    """One whose only thread is held up by a wrong password, with more that wait behind it."""
    assert desk.ask(basic("alice", "right")) == 200
    desk.free.clear()
    first = desk.start(basic("alice", "wrong"), "10.6.6.6:1")
    waits = [first]
    with pytest.raises(Refusal) as refusal:
        for number in range(WAITING_EACH + 2):
            waits.append(desk.start(basic("alice", f"wrong{number}"), f"10.6.6.6:{number}"))
    assert refusal.value.response.status == 429
    assert WAITING_EACH <= len(waits) <= WAITING_EACH + 1
    yield desk
    desk.free.set()
    assert {wait() for wait in waits} == {401}


def test_a_flood_holds_up_nobody_who_is_known(flooded: Desk) -> None:
    assert flooded.ask(basic("alice", "right")) == 200
    assert flooded.ask(basic("alice", "right"), "10.6.6.6:99") == 200
    assert flooded.ask(f"Bearer {TOKEN}") == 200
    assert flooded.ask("Bearer wrong") == 401


def test_another_address_has_its_turn_before_the_rest_of_a_flood(flooded: Desk) -> None:
    good = flooded.start(basic("bob", "other"), "10.0.0.2:1")
    before = len(flooded.checked)
    flooded.free.set()
    assert good() == 200
    assert flooded.checked.index((b"other", BOB)) <= before + 2


def test_a_flood_from_everywhere_is_bounded(desk: Desk) -> None:
    desk.free.clear()
    waits = []
    with pytest.raises(Refusal):
        for number in range(1000):
            waits.append(desk.start(basic("alice", "right"), f"10.0.{number // 256}.{number}:1"))
    assert len(waits) < 300
    desk.free.set()
    # What is found right meanwhile is not checked once more.
    assert {wait() for wait in waits} == {200}
    assert len(desk.checked) == 1


def test_the_log_tells_of_many_refusals_in_one_line(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            desk.ask("Bearer hunter2hunter2hunter2")
        desk.ask(basic("hunter2", "hunter2"))
    assert len(caplog.records) == 1
    assert "10.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text
    assert desk.access.refused == 1001


def test_the_log_counts_what_it_has_not_told(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        desk.ask(None)
    desk.access._told = -1e9
    desk.ask(None, "10.7.7.7:5")
    assert "5 requests" in caplog.records[-1].getMessage()
    assert "10.7.7.7" in caplog.records[-1].getMessage()
