"""A lock for any object that several threads use, without an attribute on it.

So the object can be copied and pickled as before.
"""

import threading
import weakref

_lock = threading.Lock()
_locks = weakref.WeakKeyDictionary()


def lock_of(owner):
    """Return the lock of an object, always the same one. A thread may take it more than once.

    Args:
        owner: an object that can be weakly referenced and is compared by its identity.
    """
    with _lock:
        return _locks.setdefault(owner, threading.RLock())
