"""What a client may ask for, and the bounds of it."""

import secrets
from typing import Annotated

from pydantic import AfterValidator, Field

from lvd.errors import InputError, shorten
from lvd.utils.parsing import parse_json
from lvd.utils.schema import OneLine, Schema, checked

MOST_BYTES = 64 << 10  # of a request's body
LONGEST_PROMPT = 2_000  # characters
MOST_STEPS, MOST_GUIDANCE, MOST_FRAMES, MOST_PIXELS = 200, 100, 1_000, 4_096
WHERE = "request"  # what messages call the body


def _unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text of whole Unicode characters is needed") from None
    return text


def _said(text):
    if not text.strip():
        raise ValueError("a text that is not blank is needed")
    return text


Text = Annotated[OneLine, Field(max_length=LONGEST_PROMPT), AfterValidator(_unicode)]


class VideoRequest(Schema):
    """The body of POST /v1/videos. What is None is the server's choice."""

    prompt: Annotated[Text, AfterValidator(_said)]
    negative_prompt: Text | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=MOST_GUIDANCE)] | None = None
    num_frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)] | None = None
    height: Annotated[int, Field(ge=8, le=MOST_PIXELS)] | None = None
    width: Annotated[int, Field(ge=8, le=MOST_PIXELS)] | None = None

    def given(self):
        """Return {field: value} of what the client has said."""
        return self.model_dump(exclude_none=True)


def read_request(body, defaults):
    """Read the body of a request.

    Args:
        body: bytes.
        defaults: {field: value} of what a client need not say; None leaves it to the pipeline. A
            field that is missing from it, other than the prompt, is one that the pipeline does not
            take.

    Returns:
        VideoRequest; its seed is drawn where none is given.

    Raises:
        InputError: one sentence that may be shown to the client.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InputError(f"{WHERE}: not UTF-8 text; JSON is needed") from None
    content = parse_json(text, WHERE)
    if not isinstance(content, dict):
        raise InputError(f"{WHERE}: found {shorten(content)}; a JSON object is needed")
    checked(VideoRequest, content, WHERE)
    asked = VideoRequest(**content).given()
    for field in asked:
        if field != "prompt" and field not in defaults:
            raise InputError(f"{WHERE}: {field}: the pipeline of this server does not take it")
    if "seed" in defaults:
        asked.setdefault("seed", secrets.randbelow(2**32))
    return VideoRequest(**{**defaults, **asked})


def request_schema():
    """Return the JSON schema of a request, for the server's openapi.json."""
    return VideoRequest.model_json_schema()
