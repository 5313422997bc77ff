"""Chromium without a window, led by ChromeDriver; tests skip where these are not installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()


class Browser:
    """A session of ChromeDriver (W3C WebDriver)."""

    def __init__(self, port: int, profile: Path, width: int):
        self.root = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                self.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1500"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": flags}}
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.root += f"/session/{made['sessionId']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.root + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, name: str) -> str:
        return self.run(f"return document.getElementById('{name}').textContent")

    def click(self, name: str) -> None:
        self.run(f"document.getElementById('{name}').click()")

    def wait(self, script: str, seconds: float = 120) -> None:
        for _ in range(int(seconds * 10)):
            if self.run(f"return {script}"):
                return
            time.sleep(0.1)
        raise AssertionError(f"{script} did not become true; {self.text('fault')}")

    def draw(self, points: list[tuple[int, int]]) -> None:
        left, top, width = self.run(
            "document.getElementById('pad').scrollIntoView();"
            "const b = document.getElementById('pad').getBoundingClientRect(); return [b.left, b.top, b.width]"
        )
        at = [(int(left + x * width / 280), int(top + y * width / 280)) for x, y in points]
        moves = [{"type": "pointerMove", "duration": 20, "x": x, "y": y} for x, y in at]
        acts = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "m", "parameters": {"pointerType": "mouse"}, "actions": acts}
        self.call("POST", "/actions", {"actions": [pointer]})


@contextmanager
def browsing(profile: Path, width: int = 1200) -> Iterator[Browser]:
    """A browser that keeps what it must in the folder `profile`."""
    for tool in ("chromedriver", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = Browser(port, profile, width)
        yield found
        found.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()
