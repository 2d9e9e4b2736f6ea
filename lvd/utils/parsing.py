"""YAML and JSON texts → plain values, in bounded time and memory.

Such a text may come from anybody. A key that stands twice is refused: a reader sees one value and
the program uses the other. Numbers are what people write as numbers: `85e-5` and `4e0` are texts
to YAML 1.1, and numbers here. In YAML `*name` repeats what `&name` marks, and a few bytes can
repeat their way to a value that fills the memory: such a text is refused before it is unfolded.
"""

import json
import re

import yaml

from lvd.errors import InputError, shorten, words_of

UNFOLDED = 10_000  # values that the aliases of a text may repeat; 100 letters count as one
DEEPEST = 50  # lists and mappings in each other
WHOLE = 2**64  # no setting is a whole number from here on
# YAML 1.2 wants neither a dot nor a sign of the exponent. The exponent is short: a hash of
# hexadecimal digits may well have one e among its digits.
FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,3}\Z")
FLOAT_TAG, INT_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """PyYAML's safe loader, with FLOAT and without keys that stand twice."""

    def construct_mapping(self, node, deep=False):
        lines = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise ValueError(f"line {line}: key {shorten(key)} stands in line {lines[key]} too")
            lines[key] = line
        return super().construct_mapping(node, deep)

    def construct_whole(self, node):
        if len(node.value) <= 80:  # longer ones take long to compute
            number = self.construct_yaml_int(node)
            if abs(number) < WHOLE:
                return number
        line = node.start_mark.line + 1
        raise ValueError(f"line {line}: {shorten(node.value)}: a whole number of 64 bits is needed")


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which puts quotes around texts that _Loader would read as numbers."""


_Loader.add_constructor(INT_TAG, _Loader.construct_whole)
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(FLOAT_TAG, FLOAT, list("-+.0123456789"))


def parse_yaml(text, where):
    """Read a YAML text.

    Args:
        text: one document.
        where: what messages call it, such as the path of its file.

    Returns:
        What it says, in plain values.

    Raises:
        InputError: it is not YAML, has a key twice, a whole number of more than 64 bits, or
            aliases that unfold to much.
    """
    return _parsed(where, text, _plain_yaml, "YAML")


def _plain_yaml(text):
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _need_small(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _need_small(root):
    """ValueError for a deep text, and for aliases that repeat many values or themselves.

    Nodes are looked at after their parts, each once: an alias is its node once more.
    """
    sizes, depths, open_nodes = {}, {}, set()
    written, waiting = 0, [root]
    while waiting:
        node = waiting[-1]
        name, line, parts = id(node), node.start_mark.line + 1, _parts(node)
        if name in sizes:
            waiting.pop()
            continue
        new = [part for part in parts if id(part) not in sizes]
        if new and name not in open_nodes:
            open_nodes.add(name)
            waiting += new
            continue
        if any(id(part) in open_nodes for part in new):
            raise ValueError(f"line {line}: an alias names what it stands in")
        open_nodes.discard(name)
        size = 1 if parts else 1 + len(node.value) // 100  # of a scalar, that is its text
        written += size
        sizes[name] = size + sum(sizes[id(part)] for part in parts)
        depths[name] = 1 + max((depths[id(part)] for part in parts), default=0)
        if sizes[name] > written + UNFOLDED:
            raise ValueError(f"line {line}: aliases repeat more than {UNFOLDED} values")
        if depths[name] > DEEPEST:
            raise ValueError(f"line {line}: nested too deeply")


def _parts(node):
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def dump_yaml(value):
    """Return plain values as YAML, keys in their order; `parse_yaml` reads the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_json(text, where):
    """Read a JSON text: see `parse_yaml`."""
    return _parsed(where, text, _plain_json, "JSON")


def _plain_json(text):
    return json.loads(text, object_pairs_hook=_mapping)


def _mapping(pairs):
    mapping = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"key {shorten(key)} stands twice")
        mapping[key] = value
    return mapping


def _parsed(where, text, parse, kind):
    """parse(text), or an InputError of one line."""
    try:
        return parse(text)
    except RecursionError as error:
        raise InputError(f"{where}: not valid {kind} (nested too deeply)") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise InputError(f"{where}: not valid {kind} ({line}{problem[:120]})") from error
    except (ValueError, TypeError, OverflowError, yaml.YAMLError) as error:
        raise InputError(f"{where}: not valid {kind} ({words_of(error)})") from error
