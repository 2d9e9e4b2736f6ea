"""The address that a server listens to, and connections whose other end may vanish."""

import os
import socket
import stat
from contextlib import suppress

from lvd.errors import InputError, words_of


def open_socket(host, port):
    """Take the server's address before anything slow is done.

    Returns:
        A socket that listens.

    Raises:
        InputError: the address is taken, or none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host {host[:80]}: {words_of(error)}; an address of this machine, such as "
            "127.0.0.1, is needed"
        ) from None
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        why = error.strerror or words_of(error)
        raise InputError(
            f"--host {host} --port {port}: {why.partition(' (')[0]}; a free port of an address of "
            "this machine is needed"
        ) from None


def address_of(listening):
    """Return the URL of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def break_when_silent(idle, pause, tries):
    """Let each TCP connection of this process break when its other end no longer answers.

    A process that ends closes its connections. A machine without power or network closes none, and
    who waits for it would wait for ever. So the system asks it whether it is there (keep-alive).
    Only Linux tells what connections a process has; elsewhere nothing is done.

    Args:
        idle: seconds of silence before it is asked.
        pause: seconds until it is asked again.
        tries: how often it is asked.
    """
    descriptors = "/proc/self/fd"
    for number in os.listdir(descriptors) if os.path.isdir(descriptors) else ():
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(number)).st_mode):
                with socket.socket(fileno=os.dup(int(number))) as connection:
                    _keep_alive(connection, idle, pause, tries)


def _keep_alive(connection, idle, pause, tries):
    is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
    if not is_tcp or connection.type != socket.SOCK_STREAM:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    milliseconds = 1000 * (idle + pause * tries)
    options = {
        socket.TCP_KEEPIDLE: idle,
        socket.TCP_KEEPINTVL: pause,
        socket.TCP_KEEPCNT: tries,
        socket.TCP_USER_TIMEOUT: milliseconds,  # for what was sent and is not confirmed
    }
    for option, value in options.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
