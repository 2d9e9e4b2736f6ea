"""Connections of a launch whose other end may vanish without a word."""

import os
import socket

from lvd.utils.sockets import break_when_silent


def test_connections_break_when_the_other_end_is_silent():
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as connection:
            break_when_silent(120, 60, 8)
            assert len(os.listdir("/proc/self/fd")) == before + 2  # none is left open
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            found = [
                connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
            ]
            assert found == [120, 60, 8, 600_000]
            connection.sendall(b"still open")
