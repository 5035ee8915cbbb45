"""Refuse every connection that leaves this machine; Python imports this file by its name.

With this folder on PYTHONPATH the rule holds in the test run, in the kernels of the notebooks,
and in every other Python process that they start.
"""

import socket

_connect, _connect_ex, _sendto = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.socket.sendto,
)
_getaddrinfo = socket.getaddrinfo
LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::")


def _is_local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    return name in ("", *LOCAL[1:]) or name.startswith("127.")


def _check(sock: socket.socket, address: object) -> None:
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and isinstance(address, tuple) and not _is_local(address[0]):
        raise OSError(f"tests: expected loopback alone, got a connection to {address[0]}")


def _guarded(call):
    def connect(self, address, *rest):
        _check(self, address)
        return call(self, address, *rest)

    return connect


def _guarded_sendto(self, data, *rest):
    _check(self, rest[-1])
    return _sendto(self, data, *rest)


def _guarded_getaddrinfo(host, *rest, **named):
    if not _is_local(host):
        raise OSError(f"tests: expected loopback alone, got a look-up of {host}")
    return _getaddrinfo(host, *rest, **named)


socket.socket.connect = _guarded(_connect)
socket.socket.connect_ex = _guarded(_connect_ex)
socket.socket.sendto = _guarded_sendto
socket.getaddrinfo = _guarded_getaddrinfo
