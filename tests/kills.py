"""Run something in a process that is to be killed on the way."""

import os
import signal
from collections.abc import Callable


def in_a_process_that_is_killed(call: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        try:
            call()
        finally:
            os._exit(1)  # it was to be killed, not to come here
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
