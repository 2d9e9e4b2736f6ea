"""MagicTime/app.py's page, served in a thread, and a client that talks to it as a browser would."""

import base64
import json
import re
import secrets
import threading
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from types import SimpleNamespace

import torch

from lvd.utils.sockets import open_socket
from tests.worlds.served import PATIENCE, until

FORM = dict(
    prompt="a red square",
    guard=True,
    rule="chosen",
    lambda_=0.6,
    eta=5,
    seed=7,
    steps=4,
    guidance=3.0,
)
JOIN, DATA = "/gradio_api/queue/join", "/gradio_api/queue/data"


@contextmanager
def app_of(*flags):
    """Serve the page of these flags; yields a namespace of its `url`, `port`, `studio`, and `jobs`,
    which are all that were asked for."""
    from MagicTime import app
    from MagicTime.utils.app.server import quiet_gradio
    from MagicTime.utils.config import read_config
    from MagicTime.utils.one_video import OneVideo

    args = app.build_parser().parse_args([str(flag) for flag in flags])
    config = read_config(args.config or app.TINY, {"save_predx_0": False})
    device = torch.device("cpu")
    sampler, guarding = OneVideo(config, device), app.make_guarding(args, device)
    sampler.load()
    with quiet_gradio() as folder, open_socket("127.0.0.1", 0) as listening:
        server, studio = app.make_served(args, sampler, guarding)
        jobs = _kept(studio)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            until(lambda: server.started, "the start")
            port = listening.getsockname()[1]
            url = f"http://127.0.0.1:{port}/"
            yield SimpleNamespace(url=url, port=port, studio=studio, jobs=jobs, folder=folder)
        finally:
            studio.close()
            server.should_exit = True
            thread.join(PATIENCE)


def _kept(studio):
    """Keep the jobs that a studio makes."""
    jobs, make = [], studio.job

    def job(asked):
        jobs.append(make(asked))
        return jobs[-1]

    studio.job = job
    return jobs


class Browser:
    """One browser's session, without a browser.

    Args:
        served: of `app_of`.
        values: of the form, FORM's where none is given; or `data`, what is sent in their place.
    """

    def __init__(self, served, data=None, **values):
        self.port = served.port
        self.session = secrets.token_hex(6)
        data = list({**FORM, **values}.values()) if data is None else data
        asked = {"data": data, "fn_index": self._function(), "session_hash": self.session}
        asked |= {"event_data": None, "trigger_id": None}
        self.joined = self._ask("POST", JOIN, json.dumps(asked))
        self.heard = ""

    def _function(self):
        config = json.loads(self._ask("GET", "/config").body)
        return next(each["id"] for each in config["dependencies"] if len(each["outputs"]) == 3)

    def _ask(self, method, path, body=None):
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return SimpleNamespace(status=answer.status, body=answer.read().decode())

    def listen(self, until_heard=None):
        """Read what the server sends, to its end, or until a text is heard; then hang up.

        Returns:
            self; `heard` is all of it.
        """
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", f"{DATA}?session_hash={self.session}")
            stream = connection.getresponse()
            while line := stream.readline():
                self.heard += line.decode()
                if until_heard and until_heard in self.heard:
                    return self
                if '"close_stream"' in line.decode():
                    return self
        return self

    @property
    def banner(self):
        """The last banner, as text."""
        return re.sub("<[^>]*>", "", re.findall(r"<b>.*?</span>", self.heard)[-1]).strip()

    @property
    def clip(self):
        """The bytes of the clip that was sent, or None."""
        found = re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", self.heard)
        return base64.b64decode(found[-1]) if found else None

    @property
    def pictures(self):
        """How many pictures of frames were sent."""
        return len(re.findall("data:(?:image|video)", self.heard))
