"""Stand between the call of an object's method and its return, such as a pipeline's `__call__`.

While anything is watched, the method is replaced in the class, for the whole process; calls of
objects that nobody watches go on to the original. So nothing is left on the object, its copies and
their pickles, and no class changes its name.
"""

import threading
from functools import wraps

from lvd.errors import InputError

_lock = threading.RLock()
_active = ()  # the watch_method of all threads, as they were entered; replaced, never changed
_replaced = {}  # (class, name) → (what the class had, what stands in its place)


class watch_method:
    """Handle all calls of one object's method while the block runs. A context manager.

    Of several watches of the same method, the one that was entered last handles a call. A call of
    `super()` inside of a call belongs to it.

    Args:
        owner: the object.
        name: of the method.
        handler: function of (method, args, kwargs) that returns what the caller gets. method: the
            original, bound.
        on_other: function of (object), called before the method of another object whose class is
            one of the owner's or of the families; it may raise.
        families: classes; all that derive from one of them belong to it, also those that are made
            later.
        alone: whether this has to be the only watch of the method. Such a watch answers for its
            object: on_other of other watches is not called.

    Raises:
        InputError: the object's class has no such method, or it is watched already and one of the
            two watches has to be alone.
    """

    def __init__(self, owner, name, handler, on_other=None, families=(), alone=False):
        self.owner = owner
        self.name = name
        self.on_other = on_other
        self._handler = handler
        self._families = families
        self._alone = alone
        self._running = []

    def __enter__(self):
        global _active
        kind = type(self.owner)
        with _lock:
            others = [watch for watch in _active if watch._watches(self.owner, self.name)]
            if others and (self._alone or others[-1]._alone):
                raise InputError(f"{kind.__name__}: it is watched already; one watch at a time")
            for cls in {*kind.__mro__, *_derived(self._families)}:
                if self.name in vars(cls):
                    _replace(cls, self.name)
            for family in self._families:
                _follow(family, self.name)
            if not any((cls, self.name) in _replaced for cls in kind.__mro__):
                _restore_unwatched()
                raise InputError(f"{kind.__name__}: has no method {self.name} that can be watched")
            _active = (*_active, self)
        return self

    def __exit__(self, *_):
        global _active
        with _lock:
            _active = tuple(watch for watch in _active if watch is not self)
            _restore_unwatched()

    def _watches(self, owner, name):
        return self.owner is owner and self.name == name

    def _handle(self, replacement, method, args, kwargs):
        """Let the handler answer a call of the owner's method."""
        thread = threading.get_ident()
        for call in tuple(self._running):  # other threads change it
            if call.thread == thread and replacement not in call.passed:
                call.passed.add(replacement)  # super().method(), once in each class
                return method(*args, **kwargs)
        call = _Call(thread, replacement)
        self._running.append(call)
        try:
            return self._handler(method, args, kwargs)
        finally:
            self._running.remove(call)


class _Call:
    """A call that is running, and the replacements that it has passed on its way up the classes."""

    def __init__(self, thread, replacement):
        self.thread = thread
        self.passed = {replacement}


def leave_alone(method):
    """Mark a method that answers for its objects: no watch ever replaces it. Returns it."""
    method._lvd_left_alone = True
    return method


def _derived(families):
    """The classes and all that derive from them by now."""
    classes = list(families)
    for cls in classes:  # which grows meanwhile
        classes.extend(cls.__subclasses__())
    return classes


def _replace(cls, name):
    """Put a method in the place of the class's own that looks for a watch of the object."""
    original = vars(cls)[name]
    known = _replaced.get((cls, name))
    if known and original is known[1]:
        return
    if getattr(original, "_lvd_left_alone", False):
        return

    @wraps(original)
    def replacement(self, *args, **kwargs):
        method = original.__get__(self, type(self))
        watches = [watch for watch in _active if watch.name == name]
        own = [watch for watch in watches if watch.owner is self]
        if not (own and own[-1]._alone):  # which answers for its object
            for watch in watches:
                if watch.on_other and watch.owner is not self:
                    watch.on_other(self)
        if own:
            return own[-1]._handle(replacement, method, args, kwargs)
        return method(*args, **kwargs)

    try:
        setattr(cls, name, replacement)
    except TypeError:  # a class of the interpreter
        return
    _replaced[cls, name] = original, replacement


def _follow(family, name):
    """Replace the method in the classes too that will derive from `family`."""
    made = "__init_subclass__"
    if made in vars(family):  # which is ours, or its own that we leave alone
        return

    def follow(cls, **kwargs):
        super(family, cls).__init_subclass__(**kwargs)
        with _lock:
            if _active and name in vars(cls):
                _replace(cls, name)

    replacement = classmethod(follow)
    setattr(family, made, replacement)
    _replaced[family, made] = None, replacement


def _restore_unwatched():
    """Give the classes back what they had, if nothing is watched any more."""
    if _active:
        return
    for (cls, name), (original, replacement) in _replaced.items():
        if vars(cls).get(name) is not replacement:  # somebody has replaced it once more
            continue
        if original is None:
            delattr(cls, name)
        else:
            setattr(cls, name, original)
    _replaced.clear()
