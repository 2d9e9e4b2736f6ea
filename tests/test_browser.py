"""The browser that pages are tested in tells of what must not happen there."""

import re

import pytest

from tests.worlds.browser import browser, quiet_page  # noqa: F401

SAID = {
    "<script>console.error('broken')</script>": "error: broken",
    "<script>throw new Error('thrown')</script>": "exception: thrown",
    "<img src='http://127.0.0.2/out.png'>": "request: http://127.0.0.2/out.png",
}


def test_a_page_without_faults_is_quiet(browser):
    with quiet_page(browser) as page:
        page.set_content("<h1>well</h1>")
        assert page.inner_text("h1") == "well"


@pytest.mark.parametrize("content", SAID)
def test_what_a_page_does_wrong_fails_its_test(browser, content):
    with pytest.raises(AssertionError, match=re.escape(SAID[content])):
        with quiet_page(browser) as page:
            page.set_content(content)
            page.wait_for_timeout(100)
