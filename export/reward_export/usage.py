"""How clients ask for a checkpoint's rewards: as told, as its own file says, or by its origin."""

import re
from pathlib import Path

from transformers import PretrainedConfig
from transformers.utils.hub import cached_file

from reward_export.checkpoint import Checkpoint
from reward_export.errors import CheckpointError
from reward_text import FORMATS, Usage, format_named
from reward_text.usage import USAGE_NAME

# an organisation's id, also within the path of a copy in the hub's cache
_CHAI = re.compile(r"(^|/|--)ChaiML(/|--)", re.IGNORECASE)


def usage_of(
    checkpoint: Checkpoint, *, chat_format: str | None = None, max_tokens: int | None = None
) -> Usage:
    """How clients are to ask for a checkpoint's rewards.

    Args:
        checkpoint: the loaded checkpoint.
        chat_format: name of a format, or a file with one; if None, the one in the checkpoint's
            `USAGE_NAME`. Without that file, ChaiML's checkpoints have `chai` and others none.
        max_tokens: the window; if None, the file's, or without a file the contract's.

    Raises:
        CheckpointError: the format or file cannot be read, or the window exceeds the positions.
    """
    try:
        usage = _beside(checkpoint) or Usage(FORMATS["chai"] if _is_chais(checkpoint) else None)
        usage = Usage(
            usage.chat_format if chat_format is None else format_named(chat_format),
            usage.max_tokens if max_tokens is None else max_tokens,
            usage.calibration,
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot tell how to ask {checkpoint.source}: {error}") from error
    n_positions = checkpoint.architecture.n_positions
    if usage.max_tokens > n_positions:
        raise CheckpointError(
            f"{checkpoint.source} has {n_positions} positions, and cannot read windows of "
            f"{usage.max_tokens} tokens; export it with --max-tokens {n_positions} or fewer"
        )
    return usage


def _beside(checkpoint: Checkpoint) -> Usage | None:
    """What the checkpoint's own file says; None if there is no file."""
    found = cached_file(
        checkpoint.source,
        USAGE_NAME,
        revision=checkpoint.hub_revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Usage.read(Path(found))


def _is_chais(checkpoint: Checkpoint) -> bool:
    config, _ = PretrainedConfig.get_config_dict(
        checkpoint.source, revision=checkpoint.hub_revision
    )
    # not from the loaded configuration, which names the folder it was read from
    names = (checkpoint.source, str(config.get("_name_or_path", "")))
    return any(_CHAI.search(name) for name in names)
