"""Running the application: signals, loading in the background, an orderly end."""

import asyncio
import signal
import sys
import threading
from contextlib import contextmanager

import uvicorn

from lvd.errors import words_of
from lvd_server.app import make_app

GRACE = 30  # seconds that running calls have to end after SIGTERM
LAST_STEP = 10  # more seconds, in which they are stopped at their next denoising step
IDLE = 100  # connections besides those that are worked on and that wait


class Server(uvicorn.Server):
    """uvicorn, with a service's orderly end.

    SIGTERM or SIGINT: no new calls, those that wait are refused, those that run have GRACE seconds.
    A second SIGINT ends them at once. SIGHUP: the guard is loaded again.

    Args:
        service: lvd_server.service.Service.
        connections: how many calls may run and wait.
    """

    def __init__(self, service, connections):
        self.service = service
        self.turn = threading.Lock()  # of those that load the guard: one at a time
        self._waits = threading.Lock()  # held while a load has not begun
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http="h11",
                ws="none",
                log_level="error",
                access_log=False,
                server_header=False,
                lifespan="off",
                limit_concurrency=connections + IDLE,
                timeout_graceful_shutdown=GRACE + LAST_STEP,
            )
        )

    @contextmanager
    def capture_signals(self):
        """Take the signals in this block; unlike uvicorn's, it does not raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = {signal.SIGINT: self.handle_exit, signal.SIGTERM: self.handle_exit}
        wanted[signal.SIGHUP] = lambda *_: self.load_again()
        before = {number: signal.signal(number, handle) for number, handle in wanted.items()}
        try:
            yield
        finally:
            for number, handle in before.items():
                signal.signal(number, handle)

    def load_again(self):
        """Load the guard again in a thread of its own, after the loads that run now."""
        if self._waits.acquire(blocking=False):  # else a load that is still to begin is enough
            threading.Thread(target=self._load_again, daemon=True).start()

    def _load_again(self):
        with self.turn:
            self._waits.release()
            try:
                self.service.load_guard()
                print(f"guard loaded again: {self.service.guard_id}", flush=True)
            except Exception as error:  # told by /health, too
                print(f"guard not loaded: {words_of(error, 250)}", file=sys.stderr, flush=True)

    async def shutdown(self, sockets=None):
        """End all calls, then the connections."""
        await asyncio.to_thread(self.service.close_door)
        loop = asyncio.get_running_loop()
        loop.call_later(GRACE, self.service.stop_running)
        await super().shutdown(sockets)


def serve(service, listening, load, connections):
    """Serve until a signal ends it. The weights are loaded while /health is red.

    Args:
        service: lvd_server.service.Service.
        listening: socket of lvd.utils.sockets.open_socket.
        load: function that loads the weights and the guard.
        connections: how many calls may run and wait.

    Raises:
        InputError: what `load` raises; the server ends then.
    """
    server = Server(service, connections)
    failed = []

    def load_all():
        try:
            with server.turn:
                load()
        except BaseException as error:
            failed.append(error)
            server.should_exit = True

    threading.Thread(target=load_all, daemon=True).start()
    try:
        server.run([listening])
    finally:
        service.close()
    if failed:
        raise failed[0]
