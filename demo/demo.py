"""From a checkpoint to ranked replies: export, serve with a real tritonserver, score, stop.

    python demo/demo.py [--checkpoint HUB_ID_OR_FOLDER]

Without a checkpoint it makes a small one with random weights, and says so.
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reward_client import RewardClient, RewardError, ServerInfo
from reward_client.commands.rank import table
from reward_export.checkpoint import revision_of
from reward_export.export import MANIFEST_NAME, ExportOptions, export
from reward_export.publish import model_folder, published_versions
from reward_export.random_checkpoint import random_checkpoint
from reward_export.sample import conversations
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parent.parent
RANDOM = ROOT / ".checkpoints" / "random"
N_GROUPS, N_CANDIDATES = 4, 4
SHOWN_TURNS, WIDTH = 4, 96


@dataclass(frozen=True)
class Group:
    """A real conversation up to somewhere, and replies to choose from."""

    id: str
    turns: tuple[str, ...]
    candidates: list[str]
    real: int

    @property
    def context(self) -> str:
        """One turn a line; the candidate is the next line."""
        return "".join(f"{turn}\n" for turn in self.turns)


def groups() -> Iterator[Group]:
    """Conversations with their real next reply among replies of other conversations."""
    dialogues = conversations()
    for number, dialogue in enumerate(dialogues[:N_GROUPS]):
        others = dialogues[N_GROUPS + number * N_CANDIDATES :]
        candidates = [other.turns[7] for other in others[: N_CANDIDATES - 1]]
        real = number % N_CANDIDATES  # not always at the same place
        candidates.insert(real, dialogue.turns[7])
        yield Group(dialogue.id, dialogue.turns[:7], candidates, real)


def publish(checkpoint: str, repository: Path) -> None:
    """Export the checkpoint, unless the newest version is it already."""
    folder = model_folder(repository)
    newest = max(published_versions(folder), default=None)
    if newest is not None and is_from(folder / str(newest), checkpoint):
        say(f"version {newest} in {repository} is {checkpoint} already")
        return
    published = export(ExportOptions(checkpoint, repository), say)
    parity = published.parity
    say(
        f"published {published.path}: {parity.n_rows} rows differ from PyTorch's rewards by at "
        f"most {parity.max_difference:.1e}"
    )


def is_from(version: Path, checkpoint: str) -> bool:
    """Whether a published version was made from this folder's model, or this hub id."""
    if not (version / MANIFEST_NAME).is_file():
        return False  # not one of ours
    manifest = json.loads((version / MANIFEST_NAME).read_text())
    if Path(checkpoint).is_dir():
        return bool(manifest["revision"] == revision_of(Path(checkpoint)))
    return bool(manifest["source"] == checkpoint)


def show(group: Group, client: RewardClient, server: ServerInfo) -> None:
    """Rank a group's candidates, and print them for reading."""
    start = time.perf_counter()
    ranking = client.rank(group.context, group.candidates)
    milliseconds = 1e3 * (time.perf_counter() - start)
    print(f"\n— conversation {group.id[:8]}, {len(group.turns)} turns, the last {SHOWN_TURNS}:")
    for turn in group.turns[-SHOWN_TURNS:]:
        print(textwrap.fill(turn, WIDTH, initial_indent="    | ", subsequent_indent="    |   "))
    print("  candidates, best first:")
    lines = table(ranking, width=WIDTH - 20).splitlines()
    for candidate, line in zip(ranking, lines, strict=True):
        note = "   (what was really said)" if candidate.index == group.real else ""
        print(f"  {line}{note}")
    print(
        f"  {len(ranking)} candidates in {milliseconds:.1f} ms, {server.model} version "
        f"{server.model_versions[-1]} on {server.name} {server.version} at {server.url}"
    )


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="hub id or folder of a GPT2ForSequenceClassification")
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        say(f"no checkpoint given: making a small one with random weights in {RANDOM}")
        checkpoint = str(random_checkpoint(RANDOM))
    try:
        run(checkpoint, arguments.repository)
    except RewardError as error:
        say(f"demo: {error}")
        return 1
    if arguments.checkpoint is None:
        print(
            "\nThese rewards mean nothing yet: the weights are random. For a trained model:\n"
            "  make demo CHECKPOINT=ChaiML/gpt2_medium_retry_and_continue_12m_reward_model"
        )
    return 0


def run(checkpoint: str, repository: Path) -> None:
    """Export, serve, score, stop."""
    publish(checkpoint, repository)
    say("starting tritonserver")
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as running, RewardClient(running.grpc_url) as client:
        server = client.connect()
        client.score(["warm-up"])  # the first call pays for the model's memory
        for group in groups():
            show(group, client, server)
    say("\nserver stopped")


def say(line: str) -> None:
    """Progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
