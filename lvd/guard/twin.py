"""A twin of a pipeline for one call: what a call changes is the twin's own, the weights are shared.

Several twins may be called at once, in threads. A twin has its own

- attributes: what a call sets on its pipeline (`_guidance_scale`, `_interrupt`, ...);
- scheduler, a deep copy;
- modules: copies of the whole tree that share all weights and buffers. Some change themselves
  while they run, as the VAE of Wan does while it decodes;
- tokenizers: one tokenizes at a time, because fast ones fail in threads ("Already borrowed").

Modules whose methods are bound to themselves cannot be copied so: hooks for offloading and caching
and `torch.compile` put such methods into them. LoRA layers that are loaded have a scale that a call
changes and changes back. Such a module is *bound*: it stays the pipeline's own, the twin works on
the pipeline's own attributes, and calls with it come one after another.
"""

import contextlib
import copy
import functools
import threading

import torch

from lvd.errors import InputError
from lvd.utils.object_locks import lock_of
from lvd.x0.schedulers import class_name
from lvd.x0.watch import watch_of

# In the `__dict__` of a module: a method that is bound to it in place of its class's, or a hook.
BOUND = {"forward", "encode", "decode", "_compiled_call_impl", "_hf_hook"}
LORA = ("peft_config", "_hf_peft_config_loaded")
MARKS = {*BOUND, *LORA, "_diffusers_hook"}
CONTAINERS = (dict, list, set)
# Of a module; an OrderedDict in older versions of torch.
OWN_DICTS = ("_modules", "_parameters", "_buffers")
TOKENIZING = (
    *("__call__", "apply_chat_template", "batch_decode", "decode", "encode", "pad"),
    *("tokenize",),
)

_tokenizing = threading.RLock()  # of all tokenizers, which take no time beside a video


@contextlib.contextmanager
def make_twin(safe, kind):
    """Yield the pipeline that one call is made with.

    Args:
        safe: a pipeline.
        kind: the class of the twin, from which that of `safe` may be derived.

    Raises:
        InputError: the scheduler is watched by a block that is open now, or is no attribute that
            a twin can have for itself.
    """
    parts = vars(safe)
    bound = [part for part in dict(parts).values() if is_bound(part)]
    with contextlib.ExitStack() as stack:
        for module in sorted(bound, key=id):  # in one order for all threads
            stack.enter_context(lock_of(module))
        own = own_parts(safe, bound)
        twin = object.__new__(kind)
        if bound:  # hooks and callbacks look at the pipeline that they were made for
            stack.enter_context(_in_place(parts, own))
            twin.__dict__ = parts
        else:
            vars(twin).update({name: _one_level(part) for name, part in dict(parts).items()} | own)
        if twin.scheduler is not own["scheduler"]:
            raise InputError(
                f"{kind.__name__}: its scheduler is a property, so a call cannot have its own; "
                "use `with guard.watch(pipe)`"
            )
        try:
            yield twin
        finally:
            twin.__class__ = type(safe)  # a callback may have kept it


def own_parts(pipe, bound):
    """Return {name: what is the twin's own} of a pipeline's parts, of which some are bound."""
    need_unwatched(pipe)
    seen = {}
    own = {"scheduler": copy.deepcopy(pipe.scheduler)}
    for name, part in dict(vars(pipe)).items():
        if isinstance(part, torch.nn.Module):
            if not any(part is module for module in bound):
                own[name] = own_tree(part, seen)
        elif callable(getattr(part, "batch_decode", None)):
            own[name] = locked_tokenizer(part)
    return own


def need_unwatched(pipe):
    """InputError if the pipeline's scheduler is watched by a block that is open now."""
    if watch_of(pipe.scheduler) is not None:
        raise InputError(
            f"{type(pipe).__name__}: its {class_name(pipe.scheduler)} is watched already "
            "(guard.watch, lvd.record); protect it, and call it protected, outside of that block"
        )


def own_tree(module, seen):
    """Return a copy of a module and all modules in it, with the same weights and buffers.

    Args:
        module: nn.Module that is not bound.
        seen: {id of a module: its copy}, of those that were copied before.
    """
    if id(module) in seen:
        return seen[id(module)]
    twin = object.__new__(type(module))
    seen[id(module)] = twin
    own = vars(twin)
    own.update(vars(module))
    for name, part in tuple(own.items()):
        if type(part) in CONTAINERS or name in OWN_DICTS:
            own[name] = part.copy()
    children = own["_modules"]
    for name, child in children.items():
        if child is not None:
            children[name] = own_tree(child, seen)
    return twin


def is_bound(part):
    """Whether a part is a module that cannot be copied so that its copies run at once with it."""
    return isinstance(part, torch.nn.Module) and any(map(_is_bound, part.modules()))


def _is_bound(module):
    attributes = vars(module)
    if isinstance(module, torch.jit.ScriptModule):
        return True
    if MARKS.isdisjoint(attributes):  # nearly always
        return False
    registry = attributes.get("_diffusers_hook")
    return (
        any(attributes.get(name) is not None for name in BOUND)
        or any(attributes.get(name) for name in LORA)
        or (registry is not None and bool(registry.hooks))
    )


def locked_tokenizer(tokenizer):
    """Return a tokenizer of the same class that waits until no other one tokenizes."""
    kind = type(tokenizer)
    twin = object.__new__(_locked_class(kind))
    vars(twin).update(vars(tokenizer))
    return twin


@functools.cache
def _locked_class(kind):
    """Return the class of a tokenizer whose methods wait."""
    members = {name: _waiting(kind, name) for name in TOKENIZING if hasattr(kind, name)}
    return type(kind)(kind.__name__, (kind,), {**members, "__module__": kind.__module__})


def _waiting(kind, name):
    @functools.wraps(getattr(kind, name))
    def method(self, *args, **kwargs):
        with _tokenizing:
            return getattr(kind, name)(self, *args, **kwargs)

    return method


def _one_level(part):
    """A copy of a plain container, anything else itself."""
    return copy.copy(part) if type(part) in CONTAINERS else part


@contextlib.contextmanager
def _in_place(parts, own):
    """Let a call have its own parts in the place of the pipeline's, which come back afterwards."""
    before = {name: parts[name] for name in own if name in parts}
    parts.update(own)
    try:
        yield
    finally:
        for name, part in own.items():
            if parts.get(name) is not part:  # somebody has set it meanwhile
                continue
            if name in before:
                parts[name] = before[name]
            else:
                del parts[name]
