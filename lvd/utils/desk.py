"""A bounded queue of calls, and the threads that work on them."""

import threading
from collections import deque


class DeskFull(Exception):
    """As many calls wait already as may."""


class Desk:
    """Works on calls in the order of their arrival.

    Args:
        work: function of a call; it raises nothing.
        workers: how many calls are worked on at once.
        places: how many more may wait.
    """

    def __init__(self, work, workers, places):
        self._work = work
        self._places = places
        self._changed = threading.Condition()
        self._waiting = deque()
        self._running = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"worker {number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, call):
        """Let a call wait for its turn; DeskFull if there is no place for it."""
        with self._changed:
            busy = len(self._running) + len(self._waiting)
            if self._closed or busy >= len(self._threads) + self._places:
                raise DeskFull
            self._waiting.append(call)
            self._changed.notify()

    def drop(self, call):
        """Take a waiting call away. Returns whether it still waited."""
        with self._changed:
            if call not in self._waiting:
                return False
            self._waiting.remove(call)
            return True

    @property
    def waiting(self):
        """How many calls wait."""
        return len(self._waiting)

    @property
    def running(self):
        """How many calls are worked on."""
        return len(self._running)

    def drop_all(self):
        """Take all waiting calls away, and return them."""
        with self._changed:
            dropped = list(self._waiting)
            self._waiting.clear()
        return dropped

    def stop_running(self, reason):
        """Ask the calls that are worked on to end at their next denoising step."""
        with self._changed:
            for call in self._running:
                call.stop(reason)

    def close(self, patience):
        """Let the threads end.

        Args:
            patience: seconds to wait for them.

        Returns:
            Whether all have ended.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(patience)
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self):
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                call = self._waiting.popleft()
                self._running.append(call)
            try:
                self._work(call)
            finally:
                with self._changed:
                    self._running.remove(call)
