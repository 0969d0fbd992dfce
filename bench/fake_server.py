"""A `FakeServer` in a process of its own, so that clients do not share its interpreter.

python bench/fake_server.py        prints its address, and serves until its input ends
"""

import sys

from reward_client.testing import FakeServer

with FakeServer(lambda ids: ids[:, 0] / 100, keep_requests=False) as server:
    print(server.url, flush=True)
    sys.stdin.read()
