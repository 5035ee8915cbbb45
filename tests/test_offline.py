"""The network is refused in this run and in what it starts; loopback is not."""

import socket
import subprocess
import sys
import threading

import pytest


def test_a_connection_to_another_machine_is_refused():
    with socket.socket() as sock, pytest.raises(OSError, match="expected loopback alone"):
        sock.connect(("192.0.2.1", 80))


def test_a_name_is_not_looked_up():
    with pytest.raises(OSError, match="expected loopback alone"):
        socket.getaddrinfo("example.org", 80)


def test_a_python_that_the_tests_start_is_guarded_too():
    code = "import socket; socket.socket().connect(('192.0.2.1', 80))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "expected loopback alone" in done.stderr


def test_loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()

        with socket.create_connection(server.getsockname()) as client:
            assert client.recv(1) == b""
