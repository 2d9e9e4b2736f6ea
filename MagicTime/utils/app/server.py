"""Serving the page: to this machine alone, without a word to any other."""

import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from MagicTime.utils.app.door import Door, is_this_machine

STYLE = Path(__file__).with_name("style.css")
GRACE = 3  # seconds that open connections have at the end
SWEEP = 60  # seconds after which gradio deletes what lies in its cache


@contextmanager
def quiet_gradio():
    """Let gradio, which must not be imported before, send nothing and write to one folder alone.

    Yields the path of that folder, which is deleted at the end.
    """
    with TemporaryDirectory(prefix="lvd_app_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["GRADIO_SSR_MODE"] = "False"
        yield folder


def make_app(page, host):
    """Make the ASGI application of a page.

    Args:
        page: gradio's Blocks.
        host: address that it will listen to.
    """
    import gradio as gr
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    page.delete_cache = (SWEEP, SWEEP)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=1,
        theme=gr.themes.Default(**fonts),
        css=STYLE.read_text(encoding="utf-8"),
    )
    functions = [number for number, each in page.fns.items() if each.fn is not None]
    return Door(app, is_this_machine(host), functions)


def make_server(app):
    """Return uvicorn's Server of an ASGI application; SIGTERM or SIGINT end its `run` in order."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self):
            """Take the signals in this block; unlike uvicorn's, it does not raise them again."""
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = {each: signal.signal(each, self.handle_exit) for each in numbers}
            try:
                yield
            finally:
                for number, handle in before.items():
                    signal.signal(number, handle)

    return Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
