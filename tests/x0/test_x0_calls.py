"""A method is watched by its object: all others, and the classes afterwards, are as they were."""

import copy
import pickle
import threading

import pytest

from lvd.errors import InputError
from lvd.x0.calls import watch_method


class Base:
    def __call__(self, value):
        return value, type(self).__name__


class Derived(Base):
    def __call__(self, value):
        return super().__call__(value + 1)


def doubled(method, args, kwargs):
    return method(*args, **kwargs) * 2


@pytest.fixture(autouse=True)
def classes_are_as_before():
    before = Base.__call__, Derived.__call__
    yield
    assert (Base.__call__, Derived.__call__) == before


@pytest.mark.parametrize("kind, given", [(Base, 1), (Derived, 2)])
def test_one_object_alone(kind, given):
    """A call of super() belongs to the call; copies and pickles of the object are not watched."""
    mine, other, others = kind(), kind(), []
    with watch_method(mine, "__call__", doubled, on_other=others.append):
        assert mine(1) == (given, kind.__name__) * 2 and kind.__call__.__name__ == "__call__"
        assert mine(value=1) == mine(1)
        twins = [other, copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))]
        for twin in twins:
            assert twin(1) == (given, kind.__name__) and others[-1] is twin
    assert mine(1) == (given, kind.__name__)


def test_a_call_inside_of_the_call_is_a_new_one():
    calls = []

    def again(method, args, kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise InputError("deep enough")
        return method(*args, **kwargs)

    class Recursive(Base):
        def __call__(self, value):
            super().__call__(value)
            return self(value + 1)

    mine = Recursive()
    with watch_method(mine, "__call__", again), pytest.raises(InputError):
        mine(0)
    assert calls == [(0,), (1,), (2,)]


def test_the_last_watch_decides_unless_one_is_alone():
    mine = Base()
    with watch_method(mine, "__call__", doubled):
        with watch_method(mine, "__call__", lambda method, args, kwargs: "last"):
            assert mine(1) == "last"
        assert len(mine(1)) == 4
        with pytest.raises(InputError, match="one watch at a time"):
            watch_method(mine, "__call__", doubled, alone=True).__enter__()
    with watch_method(mine, "__call__", doubled, alone=True):
        with pytest.raises(InputError, match="one watch at a time"):
            watch_method(mine, "__call__", doubled).__enter__()
        with watch_method(Base(), "__call__", doubled, alone=True):
            assert len(mine(1)) == 4


def test_blocks_may_end_in_any_order():
    one, two = Base(), Base()
    first, second = (watch_method(mine, "__call__", doubled) for mine in (one, two))
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert len(one(1)) == 2 and len(two(1)) == 4
    second.__exit__()
    assert len(two(1)) == 2


def test_somebody_else_may_replace_the_method_meanwhile():
    mine, own = Base(), Base.__call__
    first = watch_method(mine, "__call__", doubled)
    first.__enter__()
    replaced = Base.__call__
    Base.__call__ = lambda self, value: ("around", *replaced(self, value))
    try:
        assert mine(1) == ("around", *(1, "Base") * 2)
        first.__exit__()
        assert mine(1) == ("around", 1, "Base")
        with watch_method(mine, "__call__", doubled):
            assert mine(1) == ("around", 1, "Base") * 2
        assert mine(1) == ("around", 1, "Base")
    finally:
        Base.__call__ = own


def test_calls_of_other_threads_are_calls_too():
    mine, found = Base(), []
    with watch_method(mine, "__call__", doubled):
        thread = threading.Thread(target=lambda: found.append(mine(1)))
        thread.start()
        thread.join()
    assert found == [(1, "Base") * 2]


def test_what_has_no_such_method_is_refused():
    for owner in (object(), 3, print):
        with pytest.raises(InputError, match="has no method __call__ that can be watched"):
            watch_method(owner, "__call__", doubled, families=(Base,)).__enter__()


def test_a_family_of_classes():
    """Of which some are made while the block runs."""
    others = []
    with watch_method(Derived(), "__call__", doubled, on_other=others.append, families=(Base,)):

        class Later(Base):
            def __call__(self, value):
                return value

        later = Later()
        assert later(1) == 1 and others == [later]
    assert later(2) == 2 and others == [later] and "__init_subclass__" not in vars(Base)
    assert Later.__call__.__qualname__.endswith("Later.__call__")
