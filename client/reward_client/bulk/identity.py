"""Whether an output belongs to an input: a small file next to it says what it was made from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from reward_client.bulk.columns import Columns
from reward_client.bulk.errors import OutputError
from reward_client.bulk.job import Format, Job, Shard
from reward_client.bulk.streams import STDIN
from reward_text import Format as ChatFormat
from reward_text import Truncation

HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """What an output's rewards depend on, besides the model's version, which each line has.

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
        model: `ModelInfo.identity` of the model that answered; None before the first answer, or
            if the server does not say.
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
    model: str | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        truncation: Truncation,
        chat_format: ChatFormat | None = None,
        head: bytes = b"",
    ) -> "Identity":
        """The identity of what the job would write now.

        Args:
            job: says which input to look at.
            truncation: the client's truncation.
            chat_format: the client's format.
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
            truncation,
            job.columns,
            job.shard,
            lines,
            None if chat_format is None else chat_format.as_json(),
        )

    def check(self, job: Job) -> "Identity":
        """Refuse an output that was made from something else.

        Returns:
            The identity with the model of the output so far.

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
        model = known.get("model")
        return replace(self, model=model if isinstance(model, str) else None)

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
        found: dict[str, object] = json.loads(json.dumps(asdict(self)))  # lists for tuples
        return found


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
