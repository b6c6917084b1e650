"""One page in Chromium that runs artifact after artifact, as a phone does whose person has pressed Run once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser, Page
from chromium import chromium
from web_packages import web_packages

from exporter.connections.browser.connection import BrowserConnection
from exporter.connections.browser.stand import stand_at
from exporter.core.sections import Parity
from exporter.pipeline.opening import open_known
from exporter.pipeline.parity import run_golden

SHOWN = """new Promise(done => {
  const look = () => document.querySelector("#run").hidden ? setTimeout(look, 20) : done(0);
  look();
})"""


class OnePage:
    """Judges artifacts in its page."""

    def __init__(self, page: Page, presser: ThreadPoolExecutor) -> None:
        self._page, self._presser = page, presser
        self._pressed: Future[None] | None = None
        self._connection = BrowserConnection("phone")

    def parity(self, artifact: Path) -> Parity:
        """Run the golden cases of an artifact in the page, and return what came of it."""
        if self._pressed is None:  # the button is there once there is something to run
            self._pressed = self._presser.submit(self._press)
        opened = open_known(artifact)
        return run_golden(opened.folder, opened.manifest, lambda _: None, self._connection)[0]

    def _press(self) -> None:
        self._page.evaluate(SHOWN)
        self._page.click("#run")

    def dismiss(self) -> None:
        """Let another page come to the same address."""
        if self._pressed is not None:
            self._pressed.result()
        self._connection.next_device()


@contextmanager
def one_page(shared_folder: Path, folder: Path) -> Iterator[OnePage]:
    """Open the page in a Chromium whose files are in `folder`; skips where there is none, or no runtime for it."""
    program, cache = chromium(shared_folder), web_packages(shared_folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(1) as presser,
        Browser(program, folder) as browser,
    ):
        patch.setenv("XDG_CACHE_HOME", str(cache))
        page = browser.new_page()
        page.open(stand_at("loopback", https=False).url)
        opened = OnePage(page, presser)
        yield opened
        opened.dismiss()
