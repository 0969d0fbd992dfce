"""The process of a tritonserver: started, waited for, and ended with all that belongs to it."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from reward_serve.launch import in_new_process
from reward_serve.model_process import Idleness

WATCH_S = 1.0
IDLE_LOOKS = 3  # of WATCH_S each: then what is in flight is nothing that anything works on
LATE_S = 5.0  # what a server that ends by itself may take beyond its own time-out


class Process:
    """A running tritonserver; it leads a process group of its own.

    Args:
        words: the program and its arguments.
        log: file that its output is added to.
        env: its environment.
        end_with_parent: whether it ends when the thread that starts it does.

    Attributes:
        pid: its process id.
    """

    def __init__(
        self, words: Iterable[str], log: Path, env: Mapping[str, str], *, end_with_parent: bool
    ) -> None:
        with log.open("ab") as file:  # to append: it may be cut while it is written
            self._process = subprocess.Popen(  # noqa: S603  # the wheel's own binary
                [*words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C is ours to pass on
                preexec_fn=partial(  # noqa: PLW1509  # it calls the system alone
                    in_new_process, end_with_parent=end_with_parent
                ),
            )
        self.pid = self._process.pid

    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; None if it runs."""
        return self._process.poll()

    def wait(self) -> int | None:
        """The same, once it has ended or a second has passed."""
        if self._process.poll() is None:
            descriptor = os.pidfd_open(self.pid)  # subprocess would look twenty times a second
            try:
                select.select([descriptor], [], [], WATCH_S)
            finally:
                os.close(descriptor)
        return self._process.poll()

    def terminate(self) -> None:
        """Have it answer what it has, and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def drain(self, timeout_s: float) -> None:
        """Wait until it ends, having been told to: in peace within the time-out, then by force.

        It is not waited for if its models are idle: what it waits for then never comes.
        """
        idleness, deadline = Idleness(self.pid), time.monotonic() + timeout_s + LATE_S
        while self.wait() is None:
            if idleness.lasts() >= IDLE_LOOKS or time.monotonic() > deadline:
                self._process.kill()

    def end(self, timeout_s: float) -> None:
        """Have it and its helpers end; `timeout_s` as of `drain`."""
        if self._process.poll() is None:
            self._process.terminate()
            self.drain(timeout_s)
        with contextlib.suppress(ProcessLookupError):  # the usual case: nothing is left
            os.killpg(self.pid, signal.SIGKILL)
