"""What the exporter knows about one version, for servers and clients.

A version folder carries it in `manifest.json`. Triton has one configuration for all versions of a
model, so there each version has a parameter of its own, named by `parameter_of`. The exporter
writes the parameter before it renames the version into place; until then nothing reads it.
"""

import hashlib
import json

from reward_contract.contract import CONTRACT, Frozen

MANIFEST_NAME = "manifest.json"
"""File in a version folder: what was exported, from what, and how it was checked."""


def parameter_of(version: int) -> str:
    """Name of the model parameter with a version's facts, for example ``version.3``."""
    return f"version.{version}"


class Golden(Frozen):
    """Rows whose rewards PyTorch has computed, to check a server's answers with.

    Attributes:
        rows: token ids of each row, without padding; () is the empty text.
        rewards: PyTorch's float32 reward of each row.
        tolerance: largest difference allowed for the version's precision.
        max_tokens: the version's window.
    """

    def __init__(
        self,
        rows: tuple[tuple[int, ...], ...],
        rewards: tuple[float, ...],
        tolerance: float,
        max_tokens: int = CONTRACT.max_tokens,
    ) -> None:
        self.rows = rows
        self.rewards = rewards
        self.tolerance = tolerance
        self.max_tokens = max_tokens

    def padded(self) -> list[list[int]]:
        """The rows as clients send them: each `max_tokens` ids."""
        pads = [CONTRACT.pad_token_id] * self.max_tokens
        return [[*row, *pads[len(row) :]] for row in self.rows]

    def is_close(self, row: int, reward: float) -> bool:
        """Whether a server's reward of a row, by its index, is within the tolerance."""
        return abs(reward - self.rewards[row]) <= self.tolerance  # phrased so that NaN is not


USAGE = ("chat_format", "max_tokens", "calibration")
"""Keys of `Facts.usage`, as `reward_text.Usage` writes and reads them."""


class Facts(Frozen):
    """What the exporter knows about one version.

    A server does not show fields that are newer than its configuration, nor any if the
    configuration is not the exporter's.

    Attributes:
        golden: rows to check a server with; None if the exporter wrote none.
        sha256: digest of each file of the version, by file name.
        usage: how to use the model: the JSON object of `reward_text.Usage`, of which only the
            window is read here.
        source: hub id or folder of the checkpoint; None if unknown.
        revision: the hub's commit, or what tells a folder's weights apart; None if unknown.
        precision: as `gpt2-reward export --precision` has it; None if unknown.
    """

    def __init__(  # noqa: PLR0913  # by keyword
        self,
        *,
        golden: Golden | None,
        sha256: dict[str, str],
        usage: dict[str, object] | None = None,
        source: str | None = None,
        revision: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.golden = golden
        self.sha256 = sha256
        self.usage = usage or {}
        self.source = source
        self.revision = revision
        self.precision = precision

    @property
    def identity(self) -> str | None:
        """One SHA-256 of all files of the version; None if their digests are unknown.

        Two fine-tuned models of one shape differ only in the file of weights.
        """
        if not self.sha256:
            return None
        lines = "".join(f"{name} {sha}\n" for name, sha in sorted(self.sha256.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        """Read a manifest, or the value of a version's parameter; other fields are ignored.

        Raises:
            ValueError: it is not JSON, or not of this form.
        """
        try:
            found = json.loads(text)
            usage = {key: found[key] for key in USAGE if key in found}
            golden = found.get("golden")
            return cls(
                golden=None if golden is None else _golden(golden, _window(usage)),
                sha256={str(name): str(sha) for name, sha in found.get("sha256", {}).items()},
                usage=usage,
                source=_text(found.get("source")),
                revision=_text(found.get("revision")),
                precision=_text(found.get("precision")),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the facts of a version: {error!r}") from error

    def as_json(self) -> dict[str, object]:
        """The facts as a JSON object, for a manifest or a parameter; `from_json` reads it."""
        found: dict[str, object] = {"sha256": self.sha256, **self.usage}
        for key in ("source", "revision", "precision"):
            if (value := getattr(self, key)) is not None:
                found[key] = value
        if self.golden is not None:
            found["golden"] = {
                "rows": [list(row) for row in self.golden.rows],
                "rewards": list(self.golden.rewards),
                "tolerance": self.golden.tolerance,
            }
        return found


def _golden(found: dict[str, list[object]], max_tokens: int) -> Golden:
    rows = tuple(tuple(int(str(token)) for token in _listed(row)) for row in found["rows"])
    rewards = tuple(float(str(reward)) for reward in found["rewards"])
    if len(rows) != len(rewards) or not rows:
        raise ValueError(f"{len(rows)} golden rows with {len(rewards)} rewards")
    if any(len(row) > max_tokens for row in rows):
        raise ValueError(f"a golden row is longer than {max_tokens} tokens")
    return Golden(rows, rewards, float(str(found["tolerance"])), max_tokens)


def _window(usage: dict[str, object]) -> int:
    found = usage.get("max_tokens", CONTRACT.max_tokens)
    if not isinstance(found, int):
        raise TypeError(f"max_tokens is a number, not {type(found).__name__}")
    return found


def _text(found: object) -> str | None:
    if found is not None and not isinstance(found, str):
        raise TypeError(
            f"a source, a revision and a precision are texts, not {type(found).__name__}"
        )
    return found


def _listed(row: object) -> list[object]:
    if not isinstance(row, list):
        raise TypeError(f"a row is a list of ids, not {type(row).__name__}")
    return row
