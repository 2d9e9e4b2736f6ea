"""A small Hugging Face hub for tests: resolve with the hub's headers, large files behind a redirect
to another host name, Range requests, what a dataset has, and faults on demand."""

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = (
    ".safetensors",
    ".bin",
    ".ckpt",
    ".jsonl",
    ".gz",
    ".parquet",
)  # kept outside git, as on the hub: the etag is a sha256 instead of a blob id
RESOLVE = re.compile(
    r"/(?P<repo>((spaces|datasets)/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
# What huggingface_hub and datasets ask about a dataset: itself, a folder's files, some files.
ABOUT = re.compile(
    r"/api/(?P<repo>datasets/[^/]+/[^/]+)(/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)"
    r"(/(?P<folder>.+))?)?"
)


class Hub:
    """files: {"owner/name/path": bytes} ("spaces/owner/name/path" for a space, "datasets/..." for a
    dataset). faults: {path's end: fault}, one of cut (one body stops half way), stall (bodies stop
    half way and wait for `resume`), 500, short, garbage, no-range, gated, private. A dataset that
    is gated tells what files it has, as on the hub. announced: {path's end: a size that is not
    true}. revisions: those that exist (all, if None)."""

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

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.answer(body=True, asked=self.rfile.read(length).decode())

    def answer(self, body, asked=""):
        if about := ABOUT.fullmatch(urlsplit(self.path).path):
            return self.about(about, asked)
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
        if not self.exists(found["revision"]):
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

    def about(self, about, asked):
        """Answer with facts about a dataset: its commit, its files."""
        prefix = about["repo"] + "/"
        names = [key.removeprefix(prefix) for key in self.hub.files if key.startswith(prefix)]
        if not names or self.hub.fault(about["repo"]) == "private":
            return self.empty(401, {"X-Error-Message": "Invalid username or password."})
        if not self.exists(about["revision"] or "main"):
            return self.empty(404, {"X-Error-Code": "RevisionNotFound"})
        if about["what"] == "paths-info":
            wanted = parse_qs(asked).get("paths") or json.loads(asked)["paths"]
            return self.json([self.entry(prefix, name) for name in names if name in wanted])
        if about["what"] == "tree":
            folder = f"{unquote(about['folder'])}/" if about["folder"] else ""
            inside = [name for name in names if name.startswith(folder)]
            return self.json([self.entry(prefix, name) for name in inside])
        siblings = [{"rfilename": name} for name in names]
        facts = {"id": about["repo"].removeprefix("datasets/"), "sha": COMMIT, "private": False}
        self.json({**facts, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def exists(self, revision):
        return self.hub.revisions is None or revision in {*self.hub.revisions, COMMIT}

    def entry(self, prefix, name):
        content = self.hub.files[prefix + name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": etag(name, content), "size": len(content), "pointerSize": 130}
        return entry

    def json(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

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
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        asked = None if fault == "no-range" else asked
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, len(content)) if asked and asked[2] else len(content)
        if start >= len(content) > 0:
            return self.empty(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.send(content[start:end], fault, key)

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
