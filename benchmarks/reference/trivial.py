"""Answers every request with 200 and does nothing else: what the load generator reaches against it is its own ceiling."""

from __future__ import annotations

import os
import re
import select
import socket

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
READ_BYTES = 1024 * 1024
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", int(os.environ["REFERENCE_PORT"])), backlog=1024)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    missing: dict[int, int] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                missing[connection.fileno()] = 0
                epoll.register(connection, select.EPOLLIN)
                continue
            data = connections[fd].recv(READ_BYTES)
            if not data:
                connections.pop(fd).close()
                continue
            if not missing[fd]:
                length = LENGTH.search(data)
                missing[fd] = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
            missing[fd] -= len(data)
            if not missing[fd]:
                connections[fd].sendall(OK)


if __name__ == "__main__":
    main()
