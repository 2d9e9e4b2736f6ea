"""A running Label Studio, over its REST API.

Source: https://api.labelstud.io
"""

import http.client
import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from lvd.errors import InputError, shorten, typed, words_of
from lvd.utils.schema import checked

PATIENCE = 60  # seconds for an answer
LARGEST = 512 << 20  # bytes of an answer


class Server:
    """A running Label Studio.

    Args:
        url: such as "http://127.0.0.1:8080".
        token: a personal access token, or a legacy one.

    Raises:
        InputError: the address is none, nobody answers there, or the token is refused.
    """

    def __init__(self, url, token):
        try:
            parts = urlsplit(url)
        except ValueError:  # of half an IPv6 address
            parts = urlsplit("")
        if "@" in parts.netloc:  # it would be shown in messages
            raise InputError("--url: an address without a name and password in it is needed")
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise InputError(
                f"--url {typed(url)}: an address such as http://127.0.0.1:8080 is needed"
            )
        self.url = url.rstrip("/")
        self._token = token
        self._words = f"Token {token}"
        if token.count(".") == 2:  # a personal access token: it gives tokens for five minutes
            self._renew()
        self.call("GET", "/api/current-user/whoami")

    def call(self, method, path, content=None):
        """Call the API.

        Args:
            method: "GET", "POST", ...
            path: "/api/...".
            content: what is sent as JSON; None: nothing.

        Returns:
            The answer, read as JSON; None where it is empty.

        Raises:
            InputError: the server refuses it, or does not answer.
        """
        try:
            answer = self._send(method, path, content)
        except urllib.error.HTTPError as error:
            if error.code != 401 or self._token.count(".") != 2:
                raise InputError(self._refused(method, path, error)) from None
            self._renew()
            try:
                answer = self._send(method, path, content)
            except urllib.error.HTTPError as again:
                raise InputError(self._refused(method, path, again)) from None
        try:
            return json.loads(answer) if answer else None
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self.url}{path}: no JSON ({words_of(error)}); a Label Studio is needed there"
            ) from None

    def get(self, path, schema):
        """Get what the API says at a path, checked by a schema."""
        return checked(schema, self.call("GET", path), f"{self.url}{path}")

    def post(self, path, content, schema):
        """Send `content` to the API; returns its answer, checked by a schema."""
        return checked(schema, self.call("POST", path, content), f"{self.url}{path}")

    def _renew(self):
        """Get a token for the next minutes."""
        self._words = None
        try:
            answer = self._send("POST", "/api/token/refresh", {"refresh": self._token})
            self._words = f"Bearer {json.loads(answer)['access']}"
        except urllib.error.HTTPError as error:
            path = "/api/token/refresh"
            raise InputError(self._refused("POST", path, error)) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{self.url}: gives no token; a Label Studio is needed there"
            ) from None

    def _send(self, method, path, content):
        data = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        if self._words:
            headers["Authorization"] = self._words
        try:
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            with _opener.open(request, timeout=PATIENCE) as answer:
                return answer.read(LARGEST)
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = _printable(words_of(getattr(error, "reason", error)))
            raise InputError(
                f"--url {typed(self.url)}: no answer ({reason}); start the server first, by "
                "start_server.sh of the export"
            ) from None

    def _refused(self, method, path, error):
        if error.code in (401, 403):
            return f"LABEL_STUDIO_TOKEN: {self.url} refuses it (status {error.code})"
        try:
            said = _reason(error.read(10_000))
        except (OSError, http.client.HTTPException):  # the connection broke
            said = "without a reason"
        return f"{self.url}{path}: {method} gave status {error.code}: {said}"


def _reason(body):
    """What an answer says is wrong: Label Studio's own words, where it is theirs."""
    try:
        said = json.loads(body)
        said = said.get("validation_errors") or said.get("detail")
    except (ValueError, RecursionError, AttributeError):
        said = body.decode(errors="replace")
    while isinstance(said, (dict, list)) and said:
        said = next(iter(said.values() if isinstance(said, dict) else said))
    return _printable(words_of(said or "without a reason", 160))


def _printable(words):
    """What others say, for a message: a terminal would obey some of it."""
    return words if words.isprintable() else shorten(words)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another address."""

    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_NoRedirect)
