"""A real browser for tests: Chromium without a window, driven by the W3C WebDriver protocol, JSON over HTTP."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what the protocol calls an element's key
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ENTER, TAB, SHIFT, NO_KEYS = "\ue007", "\ue004", "\ue008", "\ue000"


class Browser:
    """One window."""

    def __init__(self, port: int, session: str) -> None:
        self.port, self.session = port, session

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the driver for something of this window."""
        return driver_call(self.port, method, f"/session/{self.session}{path}", body)

    def open(self, address: str) -> None:
        """Go there, and wait until it is loaded."""
        self.call("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body returns in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, script: str, seconds: float = 20) -> Any:
        """The first true value of an expression."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < end, (
                f"never true: {script}; the page says {self.run('return document.body.innerText')}"
            )
            time.sleep(0.05)
        return value

    def type(self, keys: str) -> None:
        """Press keys, wherever the focus is."""
        element = self.call("GET", "/element/active")[ELEMENT]
        self.call("POST", f"/element/{element}/value", {"text": keys})

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Make the page so wide and high, in light or dark colours."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools(
            "Emulation.setEmulatedMedia", {"features": [scheme, {"name": "prefers-reduced-motion", "value": "reduce"}]}
        )

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """Chromium's own commands."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path) -> None:
        """Write what the whole page looks like."""
        shot = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def console(self) -> list[str]:
        """What the browser complained of since it was last asked."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]


def driver_call(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The driver's answer.

    Raises:
        AssertionError: it is an error.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    content = None if method == "GET" else json.dumps(body or {})
    connection.request(method, path, content, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    value = json.loads(reply.read())["value"]
    connection.close()
    assert reply.status == 200, f"{method} {path}: {value['error']}: {value['message'][:500]}"
    return value


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A window that reaches this machine alone.

    Args:
        folder: for its profile.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("there is no chromium with a chromedriver to look at the page with")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not _is_ready(port):
            assert time.monotonic() < end, "chromedriver does not start"
            time.sleep(0.1)
        flags = ["--no-sandbox", "--headless=new", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        wanted = {"goog:chromeOptions": {"binary": browser, "args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = driver_call(port, "POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        yield Browser(port, session)
        driver_call(port, "DELETE", f"/session/{session}")
    finally:
        process.terminate()
        process.wait(10)


def _is_ready(port: int) -> bool:
    """Whether the driver takes calls."""
    try:
        return bool(driver_call(port, "GET", "/status")["ready"])
    except OSError:
        return False
