"""A headless browser, driven by its DevTools protocol over a pipe: what a page does, says and looks like."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "about:blank",
)
_CHECKS = (Path(__file__).parents[1] / "web" / "checks.js").read_text(encoding="utf-8")
_PATIENCE = 60
_ERRORS = ("Runtime.exceptionThrown", "Log.entryAdded", "Inspector.targetCrashed")


class BrowserError(Exception):
    """The browser does not do what it is told."""


class Browser:
    """A running browser with one page; ``errors`` are the complaints of its console, ``requests`` what it loads."""

    def __init__(self, program: str, profile: str) -> None:
        (out, self._to), (self._from, back) = os.pipe(), os.pipe()
        self._process = subprocess.Popen(
            [program, f"--user-data-dir={profile}", *_FLAGS],
            preexec_fn=lambda: _take(out, back),
            close_fds=False,  # none but those that were taken is inherited
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(out)
        os.close(back)
        self._left, self._id, self._session = b"", 0, None
        self.errors: list[str] = []
        self.requests: list[str] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End the process."""
        os.close(self._to)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self._id += 1
        command = {"id": self._id, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._id:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                return message["result"]

    def wait_for(self, event: str) -> None:
        """Read messages up to an event."""
        while self._message().get("method") != event:
            pass

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def ask(self, check: str, *arguments: Any) -> Any:
        """Call one of the functions in web/checks.js."""
        return self.run(f"checks.{check}({', '.join(map(json.dumps, arguments))})")

    def visit(self, path: Path) -> None:
        """Open a file, and wait until it is loaded and drawn."""
        self.errors.clear()
        self.requests.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        self.run(_CHECKS)

    def show(self, width: int, height: int, scheme: str = "light") -> None:
        """Give the window a size and the page a colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, times: int = 1) -> None:
        """Press a key, such as Tab, Enter or ArrowDown."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowRight": 39, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            pressed = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.send("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            if not select.select([self._from], [], [], _PATIENCE)[0]:
                raise BrowserError(f"the browser has not answered for {_PATIENCE} seconds")
            received = os.read(self._from, 1 << 16)
            if not received:
                raise BrowserError("the browser has ended")
            self._left += received
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") in _ERRORS:
            self.errors.append(json.dumps(message["params"]))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])


def _take(commands: int, answers: int) -> None:
    """Put the ends of two pipes where a browser looks for them: 3 and 4."""
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, answers)]
    for place, end in zip((3, 4), high, strict=True):
        os.dup2(end, place)


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(program, profile)
        try:
            yield running
        finally:
            running.close()
