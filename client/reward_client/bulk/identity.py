"""What an output was made from and by: a small file next to it says so, and Parquet itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from reward_client.aio import AsyncRewardClient
from reward_client.bulk.columns import Columns
from reward_client.bulk.errors import OutputError
from reward_client.bulk.job import Format, Job, Shard
from reward_client.bulk.streams import STDIN
from reward_client.results import ModelInfo
from reward_text import Truncation, Usage

HEAD_BYTES = 1 << 20
MADE_BY = ("library", "model_name", "model", "truncation", "chat_format")


@dataclass(frozen=True, slots=True)
class Identity:
    """What an output's rewards depend on.

    Attributes:
        size: bytes of the input; 0 for standard input.
        mtime_ns: when the input was last written; 0 for standard input.
        head_sha256: digest of the input's first MiB, or first two lines for standard input.
        format: how the input was read.
        columns: which columns were read and kept.
        shard: which part was scored; None for all.
        lines_sha256: digest of the numbers of the lines to score; None for all.
        truncation: what long texts lose.
        chat_format: the format in which conversations are rendered; None for the model's own.
        library: this library and its version.
        model_name: name of the model that is asked.
        model: the model as `Asker.rewards` returns it; None before the first answer.
    """

    size: int
    mtime_ns: int
    head_sha256: str
    format: Format
    truncation: Truncation
    columns: Columns = field(default_factory=Columns)
    shard: Shard | None = None
    lines_sha256: str | None = None
    chat_format: str | None = None
    library: str = ""
    model_name: str = ""
    model: ModelInfo | None = None

    @classmethod
    def of(cls, job: Job, client: AsyncRewardClient, head: bytes = b"") -> "Identity":
        """The identity of what the job would write now.

        Args:
            job: says which input to look at.
            client: asks for the rewards.
            head: the first two lines of standard input; unused for files.
        """
        size = mtime_ns = 0
        if job.input != STDIN:
            status = job.input.stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
            with job.input.open("rb") as file:
                head = file.read(HEAD_BYTES)
        lines = None if job.lines is None else _sha256(json.dumps(sorted(job.lines)).encode())
        return cls(
            size,
            mtime_ns,
            _sha256(head),
            job.input_format,
            client.truncation,
            job.columns,
            job.shard,
            lines,
            None if client.chat_format is None else client.chat_format.as_json(),
            f"gpt2-reward {version('gpt2-reward')}",
            client.model,
        )

    def check(self, job: Job) -> "Identity":
        """Refuse an output that was made from something else.

        Returns:
            The identity with what made the output so far.

        Raises:
            OutputError: it was made from something else; the message says what differs and what
                to do.
        """
        known = _read(job)
        if settings := self._differences(
            known, ("format", "truncation", "columns", "shard", "lines_sha256", "chat_format")
        ):
            raise OutputError(
                f"{job.output} was made with other settings: {settings}; use those, or another "
                "output"
            )
        inputs = self._differences(known, ("size", "mtime_ns", "head_sha256"))
        if inputs and not (job.trust_input or job.rescore_rejected):
            raise OutputError(
                f"{job.output} was made from another input, or {job.input} was changed: {inputs}; "
                "use another output, or continue with --trust-input if the lines already scored "
                "are the same"
            )
        try:
            model = _model_of(known.get("model"))
        except ValueError as error:
            raise OutputError(
                f"{job.meta} does not say what made {job.output}: {error}; use another output"
            ) from error
        if model is None:
            return self
        # without a digest, only their names tell models apart
        if model.identity is None and (other := self._differences(known, ("model_name",))):
            raise OutputError(f"{job.output} has another model's rewards: {other}; use that model")
        name, library = str(known.get("model_name")), str(known.get("library"))
        return replace(self, model=model, model_name=name, library=library)

    def write(self, path: Path) -> None:
        """Replace the file atomically."""
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(self._as_json(), indent=1) + "\n")
        new.replace(path)

    def _differences(self, known: Mapping[str, object], names: tuple[str, ...]) -> str:
        now = self._as_json()
        return ", ".join(
            f"{name} was {known.get(name)}, is {now[name]}"
            for name in names
            if known.get(name) != now[name]
        )

    def _as_json(self) -> dict[str, object]:
        values = asdict(replace(self, model=None))
        found: dict[str, object] = json.loads(json.dumps(values))  # lists for tuples
        return found | {"model": None if self.model is None else _json_of(self.model)}


def made_by(job: Job) -> dict[str, object]:
    """What gave an output its rewards, as `Identity.write` noted it.

    Raises:
        OutputError: that cannot be read.
    """
    known = _read(job)
    return {name: known.get(name) for name in MADE_BY}


def _json_of(model: ModelInfo) -> dict[str, object]:
    return {
        "version": model.version,
        "sha256": model.identity,
        "source": model.source,
        "revision": model.revision,
        "precision": model.precision,
        "usage": model.usage.as_json(),
    }


def _model_of(found: object) -> ModelInfo | None:
    if found is None:
        return None
    if not isinstance(found, dict) or type(found.get("version")) is not int:
        raise ValueError("it names no version of a model")
    texts = {name: found.get(name) for name in ("sha256", "source", "revision", "precision")}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str | None)]:
        raise ValueError(f"{wrong[0]} of the model is not a text")
    usage = Usage.from_json(found.get("usage"))
    return ModelInfo(
        found["version"],
        usage,
        texts["sha256"],
        texts["source"],
        texts["revision"],
        precision=texts["precision"],
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(job: Job) -> dict[str, object]:
    try:
        known = json.loads(job.meta.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(
            f"{job.output} exists, but {job.meta}, which says what it was made from, does not; use "
            "another output, or remove it"
        ) from error
    except (ValueError, OSError) as error:
        raise OutputError(f"cannot read {job.meta}: {error}") from error
    if not isinstance(known, dict):
        raise OutputError(f"{job.meta} was not written by gpt2-reward; use another output")
    return known
