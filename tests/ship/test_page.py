"""The page in a browser, without a network: it trains to the bits of Python, reads a drawn digit, can be stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnc
from nnc.runtime.cli import main
from nnc.runtime.ship.page import page

from ..browser import Browser, browsing
from .conftest import MODELS

SEVEN = [(70, 50), (140, 50), (210, 50), (180, 110), (150, 170), (125, 240)]
EPOCHS = 12


@pytest.fixture(params=[1200, 500])
def browser(request, tmp_path: Path) -> Iterator[Browser]:
    """On a desk, and as narrow as Chromium's window gets."""
    with browsing(tmp_path / "profile", request.param) as found:
        yield found


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
