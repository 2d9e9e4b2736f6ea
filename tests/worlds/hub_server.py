"""A small Hugging Face hub for tests: resolve with the hub's headers, large files behind a redirect
to another host name, Range requests, and faults on demand."""

import hashlib
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34
LARGE = (
    ".safetensors",
    ".bin",
    ".ckpt",
)  # kept outside git, as on the hub: the etag is a sha256 instead of a blob id
RESOLVE = re.compile(r"/(?P<repo>(spaces/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class Hub:
    """files: {"owner/name/path": bytes} ("spaces/owner/name/path" for a space). faults: {path's
    end: fault}, one of cut (one body stops half way), stall (bodies stop half way and wait for
    `resume`), 500, short, garbage, no-range, gated, private. announced: {path's end: a size that is
    not true}. revisions: those that exist (all, if None)."""

    def __init__(self, files):
        self.files, self.faults, self.announced, self.revisions = dict(files), {}, {}, None
        self.heads, self.bodies, self.ranges, self.tokens = Counter(), Counter(), {}, set()
        self.resume = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def size(self, path):
        return next(
            (size for end, size in self.announced.items() if path.endswith(end)),
            len(self.files[path]),
        )

    def fault(self, path):
        return next((fault for end, fault in self.faults.items() if path.endswith(end)), None)

    def close(self):
        self.resume.set()
        self.server.shutdown()
        self.server.server_close()


def etag(path, content):
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub that `server` holds."""

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        if self.path.startswith("/cdn/"):
            return self.content(self.path.removeprefix("/cdn/"), cdn=True)
        found = RESOLVE.fullmatch(self.path)
        if not found:  # huggingface_hub asks for more than files
            return self.empty(404, {})
        key = f"{found['repo']}/{found['path']}"
        self.hub.tokens.add(self.headers.get("Authorization"))
        self.hub.heads[key] += not body
        fault, known = (
            self.hub.fault(key),
            any(name.startswith(found["repo"] + "/") for name in self.hub.files),
        )
        if fault == "gated":
            return self.empty(403, {"X-Error-Code": "GatedRepo"})
        if fault == "private" or not known:
            return self.empty(401, {"X-Error-Message": "Invalid username or password."})
        if self.hub.revisions is not None and found["revision"] not in self.hub.revisions:
            return self.empty(404, {"X-Error-Code": "RevisionNotFound"})
        if key not in self.hub.files:
            return self.empty(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = self.hub.files[key]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(key, content)}"'}
        if key.endswith(LARGE):  # as on the hub: metadata here, the bytes on another host
            linked = {"X-Linked-Size": str(self.hub.size(key)), "X-Linked-Etag": headers["ETag"]}
            return self.empty(
                302,
                {**headers, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{key}"},
            )
        if body:
            return self.content(key)
        self.empty(200, headers, len(content))

    def empty(self, status, headers, length=0):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def content(self, key, cdn=False):
        if cdn:
            assert self.headers.get("Authorization") is None, "the token left the hub"
        content, fault = self.hub.files[key], self.hub.fault(key)
        self.hub.bodies[key] += 1
        self.hub.ranges.setdefault(key, []).append(self.headers.get("Range"))
        if fault == "500":
            return self.empty(500, {})
        if fault == "garbage":
            content = content.translate(bytes(range(255, -1, -1)))
        if fault == "short":
            content = content[:-3]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked and fault != "no-range" else 0
        if start >= len(content) > 0:
            return self.empty(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.send(content[start:], fault, key)

    def send(self, content, fault, key):
        half = len(content) // 2
        if fault == "cut":
            self.wfile.write(content[:half])
            del self.hub.faults[next(end for end in self.hub.faults if key.endswith(end))]
            self.close_connection = True
            return
        if fault == "stall":
            self.wfile.write(content[:half])
            self.wfile.flush()
            self.hub.resume.wait(60)
            content = content[half:]
        try:
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # a client that was killed
            pass
