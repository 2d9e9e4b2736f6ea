"""The routes of the server, and what they do with HTTP."""

import asyncio
import contextlib
import json
from html import escape

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from lvd.errors import InputError
from lvd_server.call import Call
from lvd_server.outcome import (
    CLIENT_GONE,
    OK,
    TOO_LARGE,
    TOO_SLOW,
    UNAVAILABLE,
    WRONG_BODY,
    WRONG_TYPE,
    Outcome,
    headers,
)
from lvd_server.request import MOST_BYTES, read_request, request_schema
from lvd_server.service import CLOSING, GONE

BODY_SECONDS = 30  # within which a client must have sent its request
PAGE = """<!doctype html><meta charset="utf-8"><title>LVD</title>
<h1>A guarded video pipeline</h1>
<p>{what}. The Latent Variable Defense watches each video while it is sampled; an unsafe one is
stopped and never handed out.</p>
<ul><li>POST /v1/videos with JSON, see <a href="/openapi.json">/openapi.json</a></li>
<li><a href="/health">/health</a></li><li><a href="/metrics">/metrics</a></li></ul>
"""
ANSWERS = {
    200: {"description": "the video", "content": {"video/mp4": {}}},
    400: {"description": "unsafe (verdict, categories, step, reason), or a bad request"},
    413: {"description": "the body is too large"},
    422: {"description": "the body is no such request"},
    429: {"description": "as many requests wait as may; see Retry-After"},
    503: {"description": "not checked to its end, so not handed out"},
}


class Refused(Exception):
    """A request that ends before it is understood; holds its Outcome."""

    def __init__(self, outcome):
        super().__init__(outcome.reason)
        self.outcome = outcome


def make_app(service):
    """Make the FastAPI application of a lvd_server.service.Service."""
    app = FastAPI(title="LVD: a guarded video pipeline", docs_url=None, redoc_url=None)
    body = {"required": True, "content": {"application/json": {"schema": request_schema()}}}

    @app.get("/")
    def page():
        text = PAGE.format(what=escape(service.backend.describe()))
        return Response(text, media_type="text/html")

    @app.get("/health")
    def health():
        problem = service.problem()
        told = {"status": "red" if problem else "green", "reason": problem}
        return _json(told, UNAVAILABLE if problem else OK)

    @app.get("/metrics")
    def metrics():
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/videos", responses=ANSWERS, openapi_extra={"requestBody": body})
    async def videos(request: Request):
        call = Call()
        try:
            await _handle(service, call, request)
        except asyncio.CancelledError:  # uvicorn's patience has ended
            service.give_up(call, CLOSING)
            raise
        except Exception as error:
            await asyncio.to_thread(service.fail, call, error)
        outcome = call.outcome
        told = headers(call, outcome)
        if outcome.status == OK:
            return Response(outcome.video, media_type="video/mp4", headers=told)
        return _json(outcome.body(call.id), outcome.status, told)

    return app


async def _handle(service, call, request):
    """Bring a call to its outcome."""
    try:
        body = await asyncio.wait_for(_body(request), BODY_SECONDS)
        refused = service.not_ready()
        if refused is None:
            call.request = read_request(body, service.backend.defaults)
            refused = await asyncio.to_thread(service.admit, call)
    except Refused as error:
        refused = error.outcome
    except InputError as error:
        refused = Outcome(WRONG_BODY, str(error))
    except asyncio.TimeoutError:
        refused = Outcome(TOO_SLOW, f"no whole request within {BODY_SECONDS} seconds")
    except ClientDisconnect:
        refused = Outcome(CLIENT_GONE, GONE)
    if refused:
        await asyncio.to_thread(service.settle, call, refused)
        return
    await _outcome(service, call, request)


async def _body(request):
    """Read the body of a request, as long as it is short.

    Raises:
        Refused: it is too large, or no JSON.
    """
    # A page of another site can send other types without asking; this one it must ask for.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(Outcome(WRONG_TYPE, "Content-Type: application/json is needed"))
    too_large = Outcome(TOO_LARGE, f"a body of at most {MOST_BYTES} bytes is needed")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > MOST_BYTES:
        raise Refused(too_large)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Refused(too_large)
    return bytes(body)


async def _outcome(service, call, request):
    """Wait until a call is settled, its client goes away, or its time is over."""
    loop = asyncio.get_running_loop()
    settled = asyncio.Event()

    def tell():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settled.set)

    call.when_settled(tell)
    waiting = asyncio.ensure_future(settled.wait())
    leaving = asyncio.ensure_future(_client_leaves(request))
    try:
        time_left = max(0.0, service.timeout - call.seconds())
        await asyncio.wait(
            {waiting, leaving}, timeout=time_left, return_when=asyncio.FIRST_COMPLETED
        )
        if leaving.done() and not waiting.done():
            await asyncio.to_thread(service.forget, call)
            time_left = max(0.0, service.timeout - call.seconds())
            await asyncio.wait({waiting}, timeout=time_left)
        if not waiting.done():
            reason = f"not finished within {service.timeout:g} seconds"
            await asyncio.to_thread(service.give_up, call, reason)
    finally:
        waiting.cancel()
        leaving.cancel()


async def _client_leaves(request):
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content, status, more=None):
    return Response(json.dumps(content), status, more, media_type="application/json")
