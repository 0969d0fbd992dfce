"""What the demo needs of a machine for a checkpoint, printed before it starts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

# On two idle cores of an AMD EPYC, in float32: checkpoints/chitchat, and GPT-2 medium, whose memory
# is from docs/precision.md and whose time is the sum of its steps; for the comparison, a sample of
# the batches was timed. Both grow with the weights.
SMALL_WEIGHTS, SMALL_SECONDS, SMALL_GB = 7.36e6, 20, 0.7
MEDIUM_WEIGHTS, MEDIUM_SECONDS, MEDIUM_GB = 354.8e6, 350, 4.3
BYTES_PER_WEIGHT = 4
MINUTE_S = 60


@dataclass(frozen=True)
class Cost:
    """What it takes to export a checkpoint, compare it with PyTorch, serve it and rank.

    Attributes:
        n_weights: of the checkpoint.
    """

    n_weights: int

    @property
    def seconds(self) -> float:
        """Time on two idle cores, without a download."""
        return _between(self.n_weights, SMALL_SECONDS, MEDIUM_SECONDS)

    @property
    def memory_gb(self) -> float:
        """Peak resident memory."""
        return _between(self.n_weights, SMALL_GB, MEDIUM_GB)

    @property
    def disk_gb(self) -> float:
        """Size of the version that is published."""
        return BYTES_PER_WEIGHT * self.n_weights / 1e9

    def told(self, *, to_fetch: bool) -> str:
        """The cost as a line for people."""
        minutes = self.seconds / MINUTE_S
        time = f"{minutes:.0f} minutes" if minutes > 1 else f"{self.seconds:.0f} seconds"
        fetched = f", after a download of about {self.disk_gb:.1f} GB" if to_fetch else ""
        return (
            f"{self.n_weights:,} weights: this takes about {time} on two idle cores, "
            f"{self.memory_gb:.1f} GB of memory ({available_gb():.1f} GB are available here) and "
            f"{self.disk_gb:.2f} GB of disk{fetched}"
        )


def cost(checkpoint: str) -> Cost | None:
    """The cost, from only the configuration; None if it cannot be read, as the export will say.

    Args:
        checkpoint: hub id, of which only the configuration is fetched, or folder.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint)
        with torch.device("meta"):  # shapes without numbers
            model = AutoModelForSequenceClassification.from_config(config)
    except (OSError, ValueError):
        return None
    return Cost(sum(parameter.numel() for parameter in model.parameters()))


def available_gb() -> float:
    """Memory that Linux would give to new processes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0]) / 1e9


def _between(n_weights: int, small: float, medium: float) -> float:
    """Interpolate on the line through the two checkpoints that were measured."""
    share = (n_weights - SMALL_WEIGHTS) / (MEDIUM_WEIGHTS - SMALL_WEIGHTS)
    return max(small, small + share * (medium - small))
