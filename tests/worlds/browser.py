"""A headless Chromium for pages that the project writes or serves.

Debian's package is enough (apt-get install chromium); nothing is downloaded for it.
"""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root there is no sandbox; the others keep the browser from asking anything of the network.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NEEDED = "LVD_NEED_BROWSER"  # set where a missing browser is a failure, as on CI


def browser_path():
    """Return the path of a Chromium; None: there is none here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    """A running headless Chromium (playwright's Browser)."""
    path = browser_path()
    if path is None and os.environ.get(NEEDED):
        pytest.fail(f"no browser here, one of {', '.join(NAMES)} is needed")
    if path is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@contextmanager
def quiet_page(browser, **settings):
    """Open a page that must stay free of errors.

    Args:
        browser: of the fixture.
        settings: of playwright's `new_page`: viewport, color_scheme, ...

    Yields:
        playwright's Page. What the console said as an error or a warning, every exception of a
        script and every request that left for a network are in its list `said`.
    """
    page = browser.new_page(**settings)
    page.said = []
    page.on("console", lambda message: _note(page, message))
    page.on("pageerror", lambda error: page.said.append(f"exception: {error}"))
    page.on("request", lambda request: _note_request(page, request.url))
    try:
        yield page
        assert not page.said, f"the page: {page.said}"
    finally:
        page.close()


def _note(page, message):
    if message.type in ("error", "warning"):
        page.said.append(f"{message.type}: {message.text}")


def _note_request(page, url):
    local = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")
    if not url.startswith(local):
        page.said.append(f"request: {url}")
