"""The door of the page's server: what of gradio's many routes is open, and to whom."""

import json
from ipaddress import ip_address
from urllib.parse import urlsplit

from lvd.errors import InputError, plural, shorten
from lvd.utils.parsing import parse_json
from MagicTime.utils.app.asked import FIELDS, WHERE

MOST_BYTES = 64 << 10  # of a request's body
JOIN = "/gradio_api/queue/join"
# Of gradio's many routes those that the page needs: no uploads, no files, no proxy.
PATHS = (
    *("", "/config", "/theme.css", "/manifest.json", "/favicon.ico"),
    *("/gradio_api/info", "/gradio_api/startup-events"),
    *(JOIN, "/gradio_api/queue/data", "/gradio_api/cancel", "/gradio_api/reset"),
)
FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
# The browser itself refuses what would leave for another machine.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PLAIN = (str, bool, int, float, type(None))


class Door:
    """Lets through what the page needs, and nothing else.

    Args:
        app: ASGI application.
        is_local: whether it listens to this machine alone; then a page of another site cannot ask
            it under a name that it has given to 127.0.0.1 (DNS rebinding).
        functions: gradio's numbers of the functions that the page may call.
    """

    def __init__(self, app, is_local, functions):
        self._app = app
        self._is_local = is_local
        self._functions = functions

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] == "http":
            send = _with_headers(send)
            if refused := self._refused(scope):
                await _answer(send, *refused)
                return
            if scope["path"].rstrip("/") == JOIN:
                body = await _body(receive)
                try:
                    self._check(body)
                except InputError as error:
                    await _answer(send, 422, str(error))
                    return
                receive = _again(body, receive)
        await self._app(scope, receive, send)

    def _refused(self, scope):
        """Return (status, reason) of a request that is refused, or None."""
        path = scope["path"]
        if path.rstrip("/") not in PATHS and not path.startswith(FOLDERS):
            return 404, "not here"
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._is_local and not is_this_machine(_name_of(f"//{host}")):
            return 403, "this page is for this machine alone"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("//")[2] != host:
            return 403, "this page answers to itself alone"
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length[:20]) > MOST_BYTES:
            return 413, f"a body of at most {MOST_BYTES} bytes, with its length, is needed"
        return None

    def _check(self, body):
        """InputError for a call that the page would not make.

        Gradio would look for files and addresses in values, so they must be plain.
        """
        try:
            asked = parse_json(body.decode(), WHERE)
        except UnicodeDecodeError:
            raise InputError(f"{WHERE}: not UTF-8 text; JSON is needed") from None
        asked = asked if isinstance(asked, dict) else {}
        values = asked.get("data")
        if not isinstance(values, list) or len(values) != len(FIELDS):
            raise InputError(f"{WHERE}: data: a list of {plural(len(FIELDS), 'value')} is needed")
        for name, value in zip(FIELDS, values):
            if not isinstance(value, PLAIN):
                raise InputError(f"{WHERE}: {name}: found {shorten(value)}; one value is needed")
        function = asked.get("fn_index")
        if type(function) is not int or function not in self._functions:
            raise InputError(f"{WHERE}: fn_index: found {shorten(function)}; there is none")


async def _body(receive):
    """Read a body; its length has been checked."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body, receive):
    """Return a `receive` that gives the body once more, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again():
        return messages.pop() if messages else await receive()

    return again


def _with_headers(send):
    """Return a `send` that adds HEADERS to an answer."""
    added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def with_headers(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return with_headers


async def _answer(send, status, detail):
    headers = [(b"content-type", b"application/json")]
    body = json.dumps({"detail": detail}).encode()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _name_of(address):
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def is_this_machine(host):
    """Whether an address or a name reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
