"""How fast a machine works: measured on it, or taken from a card's data sheet."""

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from lvd.errors import InputError, shorten
from lvd.utils.files import load_json, load_yaml, save_json
from lvd.utils.schema import Schema, checked

CARDS = Path(__file__).with_name("cards.yaml")
FORMAT = "lvd plan rates 1"
NAME = "plan_rates.json"  # beside the results
SURE = "within a fifth where this machine does the work, a third where files are many"
OF_PRECISION = {"bf16": "bfloat16"}
CPU = "CPU"  # what --card calls a core of a CPU
NO_NAME = re.compile("nvidia|geforce|tesla|gpu|sxm[0-9]?|hbm[0-9]?e?")  # in what cards are called


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second.

    Attributes:
        device: its name; memory: bytes of its GPU, None: not known, or a CPU.
        source: where the numbers come from, in words; sure: how sure they are.
        reached: {kind of work: operations a second}, such as "unet float16".
        host: {kind of work: seconds of one}, see cards.yaml.
        peak: {step of reproduce.sh: bytes of the GPU} where they were measured.
        is_cpu: whether the device is a CPU.
    """

    device: str
    memory: int | None
    source: str
    sure: str
    reached: dict
    host: dict
    peak: dict = field(default_factory=dict)
    is_cpu: bool = False

    def seconds(self, kind, operations):
        """Return the seconds of so many operations of a kind, such as "unet float16"."""
        return operations / self._reached(kind) if operations else 0.0

    def _reached(self, kind):
        part, *size, precision = kind.split()
        tried = [kind]
        if size:  # networks of one size, or in another precision, are the nearest
            other = "shared" if part == "grid" else "grid"
            tried.append(" ".join([other, *size, precision]))
        for each in tried:
            if each in self.reached:
                return self.reached[each]
        known = ", ".join(sorted(self.reached))
        raise InputError(
            f"{self.source}: says nothing of {kind} ({known[:120]}); --calibrate measures it"
        )


class RatesFile(Schema):
    """A plan_rates.json."""

    format: Literal["lvd plan rates 1"]
    device: str
    is_cpu: bool
    memory: int | None
    measured: str
    reached: dict[str, float]
    host: dict[str, float]
    peak: dict[str, int]


def save_rates(rates, measured, path):
    """Write measured Rates.

    Args:
        rates: Rates.
        measured: when and with which versions, in words.
        path: of the JSON file.
    """
    content = {
        "format": FORMAT,
        "device": rates.device,
        "is_cpu": rates.is_cpu,
        "memory": rates.memory,
        "measured": measured,
        "reached": rates.reached,
        "host": rates.host,
        "peak": rates.peak,
    }
    save_json(content, path)


def load_rates(path):
    """Read Rates that `save_rates` wrote; InputError for anything else."""
    content = checked(RatesFile, load_json(path), path)
    if missing := sorted(set(table()["host"]) - set(content["host"])):
        raise InputError(f"{path}: host: {missing[0]} is missing; delete the file, and --calibrate")
    for part in ("reached", "host"):
        for key, value in content[part].items():
            if not value > 0:
                raise InputError(
                    f"{path}: {part}: {shorten(key)}={shorten(value)}, a number above 0 is needed"
                )
    return Rates(
        content["device"],
        content["memory"],
        f"{path} ({content['measured']})",
        SURE,
        content["reached"],
        content["host"],
        content["peak"],
        content["is_cpu"],
    )


@lru_cache(maxsize=1)
def table():
    """Return the content of cards.yaml."""
    return load_yaml(CARDS)


def card_names():
    """Return what --card takes: the names of cards.yaml, and of a core of a CPU."""
    return [*(card["name"] for card in table()["cards"]), CPU]


def rates_named(name):
    """Return the Rates that --card names; InputError for an unknown or an ambiguous name."""
    return rates_of_cpu() if name.strip().upper() == CPU else rates_of_card(card_named(name))


def card_named(name):
    """Return the entry of cards.yaml that a name means, however it is written.

    Raises:
        InputError: no card is called so, or several are.
    """
    cards, asked = table()["cards"], _words(name)
    found = [card for card in cards if "".join(_words(card["name"])) == "".join(asked)]
    if asked and not found:
        found = [card for card in cards if set(asked) <= set(_words(card["name"]))]
    if len(found) > 1:
        names = " or ".join(card["name"] for card in found)
        raise InputError(f"--card {shorten(name)}: which of them, {names}?")
    known = found[0] if found else card_of_device(name.upper())
    if known:
        return known
    raise InputError(
        f"--card {shorten(name)}: not in the table ({', '.join(card_names())}); --calibrate "
        "measures this machine"
    )


def _words(name):
    """Lower-case words of a card's name, without the vendor's and the socket's."""
    return [word for word in re.findall("[a-z0-9]+", name.lower()) if not NO_NAME.fullmatch(word)]


def card_of_device(device_name):
    """Return the entry of cards.yaml of a card that torch calls so; None: it is not there."""
    for card in table()["cards"]:
        words = device_name.replace("NVIDIA", " ").strip()
        for text in card["device"]:
            if text in words and (text not in ("L4", "T4") or text in words.split()):
                return card
    return None


def rates_of_card(card):
    """Return the Rates of an entry of cards.yaml: a reference card's, by their TFLOPS."""
    content = table()
    reference = card_named(content["reached_by"])
    same = card["tflops"] == reference["tflops"]
    reached = {}
    for kind, tflops in content["reached"].items():
        precision = OF_PRECISION.get(kind.split()[-1], kind.split()[-1])
        peak = card["tflops"][precision]
        if peak:
            reached[kind] = 1e12 * tflops * peak / reference["tflops"][precision]
    for part, share in content["convolutions"].items():
        of_both = [_mixed(part, share, each) for each in (card, reference)]
        reached[f"{part} float32"] = 1e12 * content["reached"][f"{part} float32"]
        reached[f"{part} float32"] *= of_both[0] / of_both[1]
    how = "as measured on one"
    if not same:
        how = f"at the share of its TFLOPS that an {reference['name']} reached"
    sure = "within a third" if same else "within a factor of two: shares differ from card to card"
    return Rates(
        card["name"],
        int(card["memory"] * 1e9),
        f"the table of cards: {card['name']}, {how}",
        sure,
        reached,
        content["host"],
    )


def rates_of_cpu():
    """Return the Rates of a core of a CPU."""
    content = table()["cpu"]
    return Rates(
        content["name"],
        None,
        f"the table of cards: one core of a {content['name']}",
        "within a factor of two, more for large models; --calibrate measures this machine",
        {kind: 1e9 * gflops for kind, gflops in content["reached"].items()},
        table()["host"] | content["host"],
        is_cpu=True,
    )


def _mixed(part, share, card):
    """Share of float32's operations a second where convolutions take tf32, if the card has it."""
    content = table()
    reached, of_reference = content["reached"], card_named(content["reached_by"])["tflops"]
    products = reached["grid base float32"] / of_reference["float32"] * card["tflops"]["float32"]
    tf32 = card["tflops"]["tf32"]
    convolutions = products
    if tf32:
        convolutions = reached[f"{part} float16"] / of_reference["float16"] * tf32
    return 1 / (share / convolutions + (1 - share) / products)


def as_text(rates):
    """Return {kind: text} of what was reached, for a report."""
    return json.dumps({kind: f"{value / 1e12:.4g} TFLOPS" for kind, value in rates.reached.items()})
