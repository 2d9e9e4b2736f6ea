"""The address that a server listens to."""

import socket

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
