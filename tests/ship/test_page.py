"""The page in a browser, without a network: it trains to the bits of Python, reads a drawn digit, can be stopped."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nnc
from nnc.runtime.cli import main
from nnc.runtime.ship.page import page

from .conftest import MODELS

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
SEVEN = [(70, 50), (140, 50), (210, 50), (180, 110), (150, 170), (125, 240)]
EPOCHS = 12


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


@pytest.fixture(params=[1200, 500])
def browser(request, tmp_path: Path) -> Iterator[Browser]:
    """On a desk, and as narrow as Chromium's window gets."""
    for tool in ("chromedriver", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = Browser(port, tmp_path / "profile", request.param)
        yield found
        found.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()


def test_the_page_trains_reads_and_is_equal(browser: Browser, tmp_path: Path) -> None:
    source = (MODELS / "digits_mlp.nn").read_text()
    (tmp_path / "net.nn").write_text(source.replace("epochs    = 60", f"epochs    = {EPOCHS}"))
    net = nnc.compile(tmp_path / "net.nn", hyper={"width": 64}, threads=1)
    assert net.train_spec.epochs == EPOCHS
    (tmp_path / "page.html").write_bytes(page(net, "digits"))
    browser.call("POST", "/url", {"url": f"file://{tmp_path}/page.html"})
    browser.wait("globalThis.ready")
    assert browser.text("go") == "Train" and "1,438 examples" in browser.text("about")
    browser.click("go")
    browser.wait("+document.getElementById('epoch').textContent >= 2")
    browser.click("go")
    if browser.text("go") == "Resume":
        before = browser.text("epoch")
        time.sleep(0.5)
        assert browser.text("epoch") == before
        browser.click("go")
    browser.wait("document.getElementById('go').textContent == 'Done'")
    browser.wait("document.getElementById('verdict').textContent.startsWith('Equal')", 10)
    assert browser.text("hash") == browser.text("then").split()[-1] and len(browser.text("hash")) == 64
    assert float(browser.text("held").split()[0]) > 93 and browser.text("fault") == ""
    browser.draw(SEVEN)
    assert browser.text("digit") == "7"
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.click("again")
    assert browser.text("go") == "Train" and browser.text("epoch") == "0"


@pytest.mark.parametrize("name", ["gpt", "xor", "autoencoder"])
def test_what_is_no_classifier_of_pictures_is_refused(name: str, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["build", str(MODELS / f"{name}.nn"), "--as", "wasm", "--page"]
    assert main(arguments) == 2 and main([*arguments, "--train"]) == 1
    err = capfd.readouterr().err
    assert "goes with --as wasm --train" in err and "square picture" in err and not list(tmp_path.glob("*.html"))
