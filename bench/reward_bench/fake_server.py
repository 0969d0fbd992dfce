"""A `FakeServer` in a process of its own, so that clients do not share its interpreter.

python -m reward_bench.fake_server        prints its address, and serves until its input ends
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from reward_client.testing import FakeServer


@contextmanager
def fake_server() -> Iterator[str]:
    """The address of a server in another process."""
    with subprocess.Popen(
        [sys.executable, "-m", "reward_bench.fake_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield cast("IO[str]", process.stdout).readline().strip()
        cast("IO[str]", process.stdin).close()


def main() -> None:
    """Serve until the input ends."""
    with FakeServer(lambda ids: ids[:, 0] / 100, keep_requests=False) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
