"""A headless chromium, driven over pipes in the DevTools protocol, as far as the page's tests need.

https://chromedevtools.github.io/devtools-protocol/. Each message is JSON and ends with a NUL.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import process
from .running import wait_for

#: Where it is; None where it is not installed.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
    *("--no-default-browser-check", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--disable-breakpad"),
)
#: Seconds after which what was to happen does not.
PATIENCE = 30.0


class Failed(Exception):  # noqa: N818
    """The browser could not do what it was asked."""


class Browser:
    """A browser with a profile of its own; a context manager."""

    def __init__(self, *flags: str) -> None:
        assert CHROMIUM
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        if os.geteuid() == 0:
            flags = (*flags, "--no-sandbox")
        # It reads its descriptor 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}", *flags, "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._numbers = iter(range(1, 1 << 60))
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *unused: object) -> None:
        process.end(self.process, 10)
        os.close(self._write)
        self._thread.join(5)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _listen(self) -> None:
        rest = b""
        while data := os.read(self._read, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.heard(message["method"], message["params"])
        os.close(self._read)

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol. Raises Failed."""
        number = next(self._numbers)
        answer = self._answers[number] = queue.Queue()
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        try:
            found = answer.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failed(f"{method}: no answer") from None
        if "error" in found:
            raise Failed(f"{method}: {found['error']['message']}")
        result: dict[str, Any] = found["result"]
        return result

    def page(self, width: int = 1280, height: int = 900, **media: str) -> Page:
        """A new tab of some size in CSS pixels; ``prefers_color_scheme="dark"`` and the like."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        self._pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            page.ask(f"{domain}.enable")
        page.resize(width, height)
        if media:
            features = [
                {"name": name.replace("_", "-"), "value": text} for name, text in media.items()
            ]
            page.ask("Emulation.setEmulatedMedia", features=features)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target
        #: What it complained about: errors and warnings of the console, exceptions, violations of
        #: the content security policy.
        self.complaints: list[str] = []
        #: What it enters where it is asked for a user and a password; see Fetch.enable.
        self.user: tuple[str, str] | None = None
        self._loaded = threading.Event()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.ask(method, self.session, **params)

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Takes an event, on the browser's thread."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Fetch.requestPaused":
            self._tell("Fetch.continueRequest", requestId=params["requestId"])
        elif method == "Fetch.authRequired" and self.user:
            login = dict(zip(("username", "password"), self.user, strict=True))
            answer = {"response": "ProvideCredentials", **login}
            name = "Fetch.continueWithAuth"
            self._tell(name, requestId=params["requestId"], authChallengeResponse=answer)
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", "")
            self.complaints.append(f"{details['text']} {thrown}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))

    def _tell(self, method: str, **params: Any) -> None:
        """Calls a method without waiting for it: on the browser's thread there is no answer."""
        threading.Thread(target=self.ask, args=(method,), kwargs=params, daemon=True).start()

    def resize(self, width: int, height: int, scale: float = 1, mobile: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def open(self, url: str) -> None:
        """Loads a page."""
        self._loaded.clear()
        answer = self.ask("Page.navigate", url=url)
        if "errorText" in answer:
            raise Failed(f"{url}: {answer['errorText']}")
        assert self._loaded.wait(PATIENCE), f"{url} was not loaded"

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it comes to. Raises Failed."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise Failed(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, script: str, timeout: float = PATIENCE) -> None:
        """Waits until an expression is true."""
        wait_for(lambda: bool(self.run(script)), script, timeout)

    def text(self, selector: str) -> str:
        """What an element shows."""
        found = self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        assert isinstance(found, str)
        return found

    def key(self, name: str, code: int) -> None:
        """Presses a key, such as Tab, 9."""
        for kind in ("rawKeyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code
            )

    def figures(self) -> dict[str, float]:
        """What it has cost until now, such as TaskDuration in seconds."""
        metrics = self.ask("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in metrics}

    def picture(self, path: Path, full: bool = True) -> None:
        """Writes a picture of it, of all its length with ``full``."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def tree(self) -> list[dict[str, Any]]:
        """The nodes that a screen reader is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node["ignored"]]

    def close(self) -> None:
        self.browser.ask("Target.closeTarget", targetId=self.target)


def until(condition: Callable[[], bool], pause: float = 0.05, timeout: float = PATIENCE) -> bool:
    """Whether a condition comes to hold."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False


def names(nodes: Iterable[dict[str, Any]], role: str) -> list[str]:
    """The names of the nodes of a role."""
    return [
        node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == role
    ]
