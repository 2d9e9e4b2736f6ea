"""`python` for shell scripts under test: forks of a server that has imported everything.

    python tests/worlds/fork_server.py SOCKET     serves until it is ended
    write_python(PATH, SOCKET)                    writes the command that asks it

A shell script such as reproduce.sh starts a dozen processes, which import for four seconds each.
What a fork does otherwise is the same: its arguments, environment, folder, output and exit status.
"""

import array
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

IMPORTED = (
    *("plan", "lvd_plan.check", "lvd_plan.inputs", "lvd_plan.own_data", "lvd_plan.earlier"),
    *("MagicTime.utils.run", "build_x0", "gen_eval_set", "train_mae", "embed_model"),
    *("test_accuracy", "choose_rule", "tools.closing_report", "lvd.evaluation.votes"),
)
CLIENT = """#!{python} -SE
import array, json, os, socket, sys
words = sys.argv[:1] + sys.argv[2 if sys.argv[1] == "-u" else 1:]
if words[1].startswith("-") and words[1] != "-m":
    os.execv({python!r}, sys.argv)
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    files = array.array("i", (0, 1, 2))
    server.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(asked)
    answer = server.recv(1)
os._exit(answer[0] if answer else 1)
"""


def write_python(path, address):
    """Write a command that is used as `python [-u] script words` or `python -m module words`.

    With other flags it is Python itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CLIENT.format(python=sys.executable, socket=str(address)))
    path.chmod(0o755)


def be_python(words, folder, environment, files):
    """Do in this fork what `python words` does; words[0] is the command itself."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, words = words[0], words[1:]
    kind, rest = words[0], words[1:]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


def status_of(words, folder, environment, files):
    """Return the exit status of `be_python`."""
    try:
        be_python(words, folder, environment, files)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def answer(connection):
    """Serve one client, in a fork of its own."""
    length, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(12))
    files = array.array("i")
    files.frombytes(ancillary[0][2])
    asked = b""
    while len(asked) < int.from_bytes(length, "big"):
        asked += connection.recv(1 << 20)
    words, folder, environment = json.loads(asked)
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    connection.sendall(bytes([status_of(words, folder, environment, files) % 256]))


def end_with(connection):
    """End this process when its client has ended, as a signal to the client is meant for it."""
    if connection.recv(1) == b"":
        os.kill(os.getpid(), signal.SIGTERM)


def serve(address):
    """Serve until this process is ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for module in IMPORTED:
        __import__(module)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(connection)
                os._exit(0)
            connection.close()
            while True:  # no zombies
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break


if __name__ == "__main__":
    serve(sys.argv[1])
