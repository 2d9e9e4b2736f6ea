"""Settings as typed objects: precedence, types, and what a config may not do."""

from dataclasses import dataclass, field, make_dataclass

import pytest

from lvd.errors import InputError
from lvd.utils.config import merged, parse_overrides


@dataclass
class Settings:
    epoch: int = 3
    lr: float | None = None
    size: str = "base"
    flip: bool = False
    seeds: list[int] = field(default_factory=lambda: [1])


@dataclass
class Named:
    size: str = ""
    name: str = ""


def test_a_stronger_layer_wins_and_none_undoes_nothing():
    layers = [
        ("train.yaml", {"epoch": 7, "lr": "1e-5", "size": "nano"}),
        ("flags", {"epoch": 9, "size": None}),
        ("key=value", parse_overrides(["epoch=20", "seeds=[4, 5]"])),
    ]
    assert merged(Settings, layers) == Settings(20, 1e-5, "nano", False, [4, 5])
    assert merged(Settings, []) == Settings()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epoch": "many"}, "epoch='many': a whole number is needed"),
        ({"epoch": 1.5}, "epoch=1.5: a whole number is needed"),
        ({"epoch": True}, "epoch=True: a whole number is needed"),
        ({"lr": "fast"}, "lr='fast': a number is needed"),
        ({"flip": "perhaps"}, "flip='perhaps': true or false is needed"),
        ({"epochs": 3}, "unknown key 'epochs'; known keys: epoch, flip, lr, seeds, size"),
        ({"size": "${oc.env:HOME}"}, "only ${key} of the same file"),
        ({"size": ["${oc.env:HOME}"]}, "only ${key} of the same file"),
        ({"size": "${oc.${part}:HOME}"}, "only ${key} of the same file"),  # part: env
        ({"size": "nano-${"}, "only ${key} of the same file"),
        ({"lr": 10**400}, "a number is needed"),
        ({"size": "${nokey}"}, "nokey"),
        ({"seeds": {"a": 1}}, "seeds={'a': 1}"),
    ],
)
def test_what_is_refused_is_named(values, said):
    with pytest.raises(InputError) as error:
        merged(Settings, [("train.yaml", values)])
    assert str(error.value).startswith("train.yaml: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_value_may_name_another_key_of_the_same_file():
    assert merged(Settings, [("train.yaml", {"size": "nano-${epoch}"})]).size == "nano-3"


def test_words_after_the_flags():
    words = ["epoch=20", "shared.lr=1e-3", "name=a=b", "prompt=''"]
    read = parse_overrides(words)
    assert read == {"epoch": 20, "shared": {"lr": 1e-3}, "name": "a=b", "prompt": ""}
    assert parse_overrides(None) == {}


@pytest.mark.parametrize(
    "word", ["epoch", "=3", "2x=1", "epoch=[", "a-b=1", "a=", "a=null", "a.b="]
)
def test_a_word_that_is_no_setting(word):
    with pytest.raises(InputError) as error:
        parse_overrides([word])
    assert word in str(error.value)


def test_a_section_is_not_also_a_value():
    with pytest.raises(InputError, match="shared"):
        parse_overrides(["shared=1", "shared.lr=2"])


@pytest.mark.parametrize("word", ["epoch=3", "shared.lr=2"])
def test_a_word_that_stands_twice(word):
    with pytest.raises(InputError, match=f"{word}: .* was given before"):
        parse_overrides(["epoch=20", "shared.lr=1e-3", word])


@pytest.mark.parametrize(
    "values, said",
    [
        ({"size": "${size}"}, "size: its ${...} leads back to its own value"),
        ({"size": "${name}", "name": "a${size}"}, "leads back to its own value"),
        ({f"t{k}": f"${{t{k + 1}}}" * 10 for k in range(9)}, "unfold to"),
    ],
)
def test_references_end(values, said):
    schema = make_dataclass("Texts", [(f"t{k}", str, "") for k in range(10)], bases=(Named,))
    with pytest.raises(InputError) as error:
        merged(schema, [("train.yaml", values)])
    assert str(error.value).startswith("train.yaml: ") and said in str(error.value)
