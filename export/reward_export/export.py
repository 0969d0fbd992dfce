"""From a checkpoint to a published version: load, write, compare, publish."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx_ir as ir
import onnxruntime

from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, Facts
from reward_contract.integrity import sha256_of
from reward_export import checkpoint as checkpoints
from reward_export import parity as parities
from reward_export.golden import golden
from reward_export.precision import PRECISIONS, PROVIDERS, Form, Precision
from reward_export.repository import ModelFolder
from reward_export.usage import usage_of
from reward_text import Usage

GRAPH_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
EMULATED = "float16 emulated on the CPU"  # instead of a provider's name
CPU, CUDA = PROVIDERS["cpu"], PROVIDERS["cuda"]
LIBRARIES = ("gpt2-reward", "torch", "transformers", "onnx", "onnx-ir", "numpy")
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # one of the two is installed

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and where to.

    Attributes:
        checkpoint: hub id or folder.
        repository: the model repository; made if only its last folder is missing.
        revision: branch, tag or commit on the hub.
        precision: of weights and arithmetic, a key of `precision.PRECISIONS`.
        device: `cpu` or `cuda`; the precision's first if None.
        attention: name of the form of attention for that device; the first if None.
        version: version number; the next free one if None.
        chat_format: format of conversations, by name or file; the checkpoint's own if None.
        max_tokens: the window; the checkpoint's own if None.
        name: the model's name in the repository, by which clients ask for it.
    """

    checkpoint: str
    repository: Path
    revision: str | None = None
    precision: str = "fp32"
    device: str | None = None
    attention: str | None = None
    version: int | None = None
    chat_format: str | None = None
    max_tokens: int | None = None
    name: str = MODEL_NAME


@dataclass(frozen=True, slots=True)
class Published:
    """A version in the repository.

    Attributes:
        path: its folder.
        parity: what was measured before it was published.
    """

    path: Path
    parity: parities.Parity


def export(options: ExportOptions, say: Say) -> Published:
    """Publish a checkpoint as a new version.

    Args:
        options: what to export, and where to.
        say: told of progress, one line per call.

    Raises:
        CheckpointError: the checkpoint is not there or cannot be served.
        ParityError: the graph does not give PyTorch's rewards.
        PublishError: the version cannot be published to the repository.
    """
    precision = PRECISIONS[options.precision]
    form = precision.form(options.device, options.attention)
    folder = ModelFolder(options.repository, options.name)
    folder.check(options.version)
    say(f"loading {options.checkpoint}")
    checkpoint = checkpoints.load(options.checkpoint, revision=options.revision)
    usage = usage_of(checkpoint, chat_format=options.chat_format, max_tokens=options.max_tokens)
    say(_asked(usage))
    n_parameters = sum(tensor.numel() for tensor in checkpoint.model.parameters())
    say(f"writing the graph: {checkpoint.architecture.n_layer} layers, {n_parameters:,} weights")
    # a tenth and 8 MB more than the weights: graph, manifest, file system
    needed = int(1.1 * precision.bytes_per_weight * n_parameters) + (8 << 20)
    if written := folder.configure():
        say(f"wrote {written}, which was missing")
    with folder.staging(needed_bytes=needed) as staged:
        graph = staged / GRAPH_NAME
        if precision.prepare:
            say("measuring activations on real conversations")
        ir.save(precision.build(checkpoint, form), graph, external_data=DATA_NAME)
        parity, compared = _compare(graph, precision, form, checkpoint)
        facts = Facts(
            golden=golden(checkpoint, parity.tolerance, usage.max_tokens),
            sha256=_hashes(staged),
            usage=usage.as_json(),
            source=checkpoint.source,
            revision=checkpoint.revision,
            precision=precision.name,
        )
        manifest = _manifest(checkpoint, parity) | facts.as_json()
        manifest |= {"device": form.device, "attention": form.name, "provider": compared}
        (staged / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")
        path = folder.publish(staged, options.version, facts)
    return Published(path, parity)


def _asked(usage: Usage) -> str:
    """One line that says how clients will ask."""
    form = usage.chat_format
    chats = "texts only (no conversation format is known; set one with --format)"
    if form is not None:
        chats = f"texts, or conversations in the format {form.name!r}"
    return f"clients send {chats}; the last {usage.max_tokens} tokens of each count"


def _compare(
    graph: Path, precision: Precision, form: Form, checkpoint: checkpoints.Checkpoint
) -> tuple[parities.Parity, str]:
    """What the comparison with PyTorch measured, and what it ran on."""
    n_positions, tolerance = checkpoint.architecture.n_positions, precision.tolerance
    reference = parities.Remembered(checkpoint)
    on_gpu = form.device == "cuda" and CUDA in onnxruntime.get_available_providers()
    if on_gpu or "cpu" in form.runs_on:
        session = parities.open_session(graph, (CUDA, CPU) if on_gpu else (CPU,))
        parity = parities.check(session, reference, n_positions, tolerance)
        if on_gpu or precision.emulation is None:
            return parity, session.get_providers()[0]
    # no GPU: emulate its rounding on this CPU
    with tempfile.TemporaryDirectory() as folder:
        emulated = Path(folder) / GRAPH_NAME
        ir.save(precision.emulate(checkpoint), emulated, external_data=DATA_NAME)
        session = parities.open_session(emulated)
        return parities.check(session, reference, n_positions, tolerance), EMULATED


def _manifest(checkpoint: checkpoints.Checkpoint, parity: parities.Parity) -> dict[str, object]:
    return {
        "head": checkpoint.head,
        "parity": parity.as_dict(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
    }


def _hashes(staged: Path) -> dict[str, str]:
    return {name: sha256_of(staged / name) for name in (GRAPH_NAME, DATA_NAME)}


def _versions() -> dict[str, str]:
    found = {}
    for name in (*LIBRARIES, *RUNTIMES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # the other of the two runtimes
    return found
