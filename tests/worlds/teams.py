"""The processes of a launch as threads: cheap, and each may see another world."""

import threading

from lvd.utils.processes import Processes


class Teammate(Processes):
    """One of the threads, as need_same and need_shared_folder take a process."""

    def __init__(self, rank, count, local_rank, table, meeting):
        super().__init__(rank, count, local_rank)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "meeting", meeting)

    def gather(self, value):
        self.table[self.rank] = value
        self.meeting.wait(60)
        values = [self.table[rank] for rank in range(self.count)]
        self.meeting.wait(60)
        return values


def rank_here():
    """Return the rank of this thread; None outside of a team."""
    name = threading.current_thread().name
    return int(name.removeprefix("rank ")) if name.startswith("rank ") else None


def together(work, machines=2, processes=1):
    """Let the threads of a team call work(team).

    Returns:
        [what each raised, or None].
    """
    count = machines * processes
    table, meeting, raised = {}, threading.Barrier(count), [None] * count

    def run(rank):
        try:
            work(Teammate(rank, count, rank % processes, table, meeting))
        except BaseException as error:
            raised[rank] = error

    threads = [
        threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised
