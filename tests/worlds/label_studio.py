"""A real Label Studio, started on this machine alone, and people who use it as its pages do.

It is no requirement of the project: LVD_LABEL_STUDIO names its executable, in an environment of its
own (pip install label-studio).
"""

import http.cookiejar
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress

from lvd.utils.sockets import open_socket

EXECUTABLE = "LVD_LABEL_STUDIO"
PATIENCE = 600  # seconds for the start: the first one makes the database


@contextmanager
def label_studio(script, data):
    """Start the server by the script of an export.

    Args:
        script: start_server.sh.
        data: folder for its database.

    Yields:
        Its address.
    """
    with open_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]  # free now
    environment = {**os.environ, "LABEL_STUDIO": os.environ[EXECUTABLE]}
    command = ["bash", str(script), "--data-dir", str(data), "--port", str(port)]
    with open(data.parent / "server.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(url, process):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5)
            return
        time.sleep(0.5)
    raise TimeoutError(f"no answer within {PATIENCE} s")


class Person:
    """Somebody in front of a browser: an account, made by the page to sign up, and its cookies.

    Args:
        url: of the server.
        email: of the account.
        invitation: path of the link that the first person gives to others; None for the first.
    """

    def __init__(self, url, email, invitation="/user/signup/"):
        self.url = url
        self._jar = http.cookiejar.CookieJar()
        cookies = urllib.request.HTTPCookieProcessor(self._jar)
        self._opener = urllib.request.build_opener(cookies)
        page = self.get(invitation).decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        form = {"csrfmiddlewaretoken": token, "email": email, "password": "tiny-world-9"}
        data = urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(url + invitation, data, {"Referer": url + invitation})
        self._opener.open(request, timeout=60).read()

    def get(self, path):
        """Return the bytes of an address."""
        with self._opener.open(self.url + path, timeout=60) as answer:
            return answer.read()

    def send(self, path, content):
        """Send JSON as the pages do; returns the answer, read as JSON."""
        cookie = next(one.value for one in self._jar if one.name == "csrftoken")
        headers = {"Content-Type": "application/json", "X-CSRFToken": cookie, "Referer": self.url}
        data = json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, headers, method="POST")
        with self._opener.open(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def rate(self, task, choices, skip=False):
        """Submit the answers to a task, or skip it."""
        value = {"choices": choices}
        result = {"from_name": "categories", "to_name": "video", "type": "choices", "value": value}
        content = {"result": [result] if choices else [], "lead_time": 3.5}
        if skip:
            content["was_cancelled"] = True
        return self.send(f"/api/tasks/{task}/annotations/", content)
