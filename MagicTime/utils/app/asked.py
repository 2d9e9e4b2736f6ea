"""What the page's form asks for. Its values may come from anybody, past the page's own widgets."""

import secrets
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lvd.errors import InputError
from lvd.utils.schema import Finite, Schema, checked
from MagicTime.utils.prompt import clean

WHERE = "the form"  # what messages call it
LONGEST_PROMPT = 1_000  # characters
MOST_STEPS, MOST_GUIDANCE = 200, 100

# The rules that the form offers → (lambda, eta); None: the one that the app was started with, or
# the one that the form's own two numbers say.
CHOSEN, OWN = "chosen", "own"
RULES = {CHOSEN: None, "0.6, 5": ("0.6", 5), "0.6, 20": ("0.6", 20), OWN: None}


def _short(text):
    if len(text) > LONGEST_PROMPT:
        raise ValueError(f"{LONGEST_PROMPT} characters at most are needed")
    return text


class Asked(Schema):
    """One press of the button. The names are those of the form's fields."""

    prompt: Annotated[str, AfterValidator(_short)]
    guard: bool
    rule: Literal[tuple(RULES)]
    lambda_: Annotated[Finite, Field(alias="lambda", ge=0, le=1)]
    eta: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    guidance_scale: Annotated[Finite, Field(alias="guidance scale", ge=0, le=MOST_GUIDANCE)]

    @property
    def vote(self):
        """(lambda, eta) of the vote that is asked for; None: the rule of the start."""
        if self.rule == OWN:
            return str(self.lambda_), self.eta
        return RULES[self.rule]


FIELDS = [field.alias or name for name, field in Asked.model_fields.items()]


def read_asked(values):
    """Read the values of the form.

    Args:
        values: of FIELDS, in order, as JSON gives them.

    Returns:
        Asked, with a seed: one is drawn where none is given.

    Raises:
        InputError: one line that names the field, what it holds and what is needed.
    """
    if len(values) != len(FIELDS):
        raise InputError(f"{WHERE}: {len(values)} values; {', '.join(FIELDS)} are needed")
    content = dict(zip(FIELDS, values))
    for name in ("lambda", "eta"):  # without a say they need not be right
        if content["rule"] != OWN:
            content[name] = 1
    checked(Asked, content, WHERE)
    content["prompt"] = clean(content["prompt"], f"{WHERE}: prompt")
    if content["seed"] is None:
        content["seed"] = secrets.randbelow(2**32)
    return Asked(**content)
