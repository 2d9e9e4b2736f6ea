"""Several "machines" on this one: each has processes, a working folder and stderr of its own.

Their processes know each other as those of `accelerate launch --num_machines` do.
"""

import socket
import subprocess

from tests.worlds import forked

AS_MACHINE = """
import os, runpy, sys
os.chdir({folder!r})
{setup}
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def start(script, *words, folders, processes=1, setups=None):
    """Start a script on every machine.

    Args:
        script: its path.
        words: its arguments.
        folders: the working folder of each machine, which is made.
        processes: on each machine.
        setups: {number of a machine: Python that its processes run first}.

    Returns:
        [forked.Forked], one a machine.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common["WORLD_SIZE"] = str(len(folders) * processes)
    machines = []
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        setup = (setups or {}).get(number, "")
        starter = folder / "as_machine.py"
        starter.write_text(AS_MACHINE.format(folder=str(folder), setup=setup, script=str(script)))
        ranks = [(number * processes + local, local) for local in range(processes)]
        environments = [
            {**common, "RANK": str(rank), "LOCAL_RANK": str(local)} for rank, local in ranks
        ]
        machines.append(forked.Forked(starter, words, environments))
    return machines


def finish(machines, timeout=120):
    """Wait for all machines; returns [CompletedProcess]."""
    return [
        subprocess.CompletedProcess(machine.args, machine.returncode, *texts)
        for machine, texts in [(each, each.communicate(timeout)) for each in machines]
    ]


def run(script, *words, folders, processes=1, setups=None):
    """A script that has ended on all machines: [CompletedProcess]."""
    return finish(start(script, *words, folders=folders, processes=processes, setups=setups))
