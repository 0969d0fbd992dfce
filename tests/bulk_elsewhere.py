"""`gpt2-reward` with every line tokenised in another process, however small the input.

python tests/bulk_elsewhere.py score --input ... --output ...
"""

import asyncio
import sys
from typing import Any

import pytest

from reward_client.bulk import workers
from reward_client.bulk.workers import Workers
from reward_client.cli import main


def tokenise_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Have one process started at once, and waited for."""
    by_itself = Workers.rows

    async def rows(self: Workers, order: Any) -> Any:
        if not self._ready:
            assert await by_itself(self, order) is None
            await asyncio.gather(*self._starting)
        return await by_itself(self, order)

    patch.setattr(workers, "FROM_TEXTS", 0)
    patch.setattr(workers, "BUSY", -1.0)
    patch.setattr("os.cpu_count", lambda: 2)
    patch.setattr(Workers, "rows", rows)


if __name__ == "__main__":
    tokenise_elsewhere(pytest.MonkeyPatch())
    sys.exit(main())
