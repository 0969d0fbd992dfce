"""From a checkpoint to ranked replies: export, serve with a real tritonserver, score, stop.

    python demo/demo.py [--checkpoint HUB_ID_OR_FOLDER]

Without a checkpoint it uses the small trained one of this repository, checkpoints/chitchat. The
conversations are real, and that checkpoint was not trained on them.
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cost import cost

from reward_client import Ranking, RewardClient, RewardError, ServerInfo
from reward_client.commands.rank import table
from reward_export.checkpoint import revision_of
from reward_export.conversations import conversations
from reward_export.export import MANIFEST_NAME, ExportOptions, export
from reward_export.repository import ModelFolder
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parent.parent
TRAINED = ROOT / "checkpoints" / "chitchat"
PROGRAM = Path(sys.executable).with_name("gpt2-reward")
N_SHOWN, N_CANDIDATES = 4, 4
TURN, STEP = 7, 5  # which turn is the reply, and how far apart the other conversations are
SHOWN_TURNS, WIDTH = 4, 96


@dataclass(frozen=True)
class Scene:
    """A real conversation up to some turn, and replies to choose from."""

    id: str
    turns: tuple[str, ...]
    candidates: list[str]
    real: int

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as messages; the bot is the one to reply."""
        roles = ("assistant", "user")  # the last one is the user's
        return [
            {"role": roles[(len(self.turns) - place) % 2], "content": turn}
            for place, turn in enumerate(self.turns)
        ]


def groups() -> Iterator[Scene]:
    """Conversations with their real next reply among replies of other conversations."""
    dialogues = conversations()
    for number, dialogue in enumerate(dialogues):
        others = [
            dialogues[(number + 1 + STEP * i) % len(dialogues)] for i in range(N_CANDIDATES - 1)
        ]
        candidates = [other.turns[TURN] for other in others]
        real = number % N_CANDIDATES  # not always at the same place
        candidates.insert(real, dialogue.turns[TURN])
        yield Scene(dialogue.id, dialogue.turns[:TURN], candidates, real)


def publish(checkpoint: str, repository: Path) -> None:
    """Export the checkpoint, unless the newest version was made from it."""
    folder = ModelFolder(repository)
    newest = max(folder.versions(), default=None)
    if newest is not None and is_from(folder.path / str(newest), checkpoint):
        say(f"version {newest} in {repository} is already an export of {checkpoint}")
        return
    if expected := cost(checkpoint):
        say(expected.told(to_fetch=not Path(checkpoint).is_dir()))
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


@dataclass(frozen=True)
class Ranked:
    """A group, its candidates best first, and how long that took."""

    group: Scene
    ranking: Ranking
    milliseconds: float

    @property
    def lead(self) -> float:
        """How far the first reward is above the second."""
        return self.ranking[0].reward - self.ranking[1].reward


def rank(group: Scene, client: RewardClient) -> Ranked:
    """Rank a group's candidates."""
    start = time.perf_counter()
    ranking = client.rank(group.messages, group.candidates)
    return Ranked(group, ranking, 1e3 * (time.perf_counter() - start))


def show(ranked: Ranked, server: ServerInfo) -> None:
    """Print a ranked group."""
    group, ranking = ranked.group, ranked.ranking
    print(f"\n— conversation {group.id[:8]}, {len(group.turns)} turns, the last {SHOWN_TURNS}:")
    for turn in group.turns[-SHOWN_TURNS:]:
        print(textwrap.fill(turn, WIDTH, initial_indent="    | ", subsequent_indent="    |   "))
    print("  candidates, best first:")
    lines = table(ranking, width=WIDTH - 20).splitlines()
    for candidate, line in zip(ranking, lines, strict=True):
        note = "   (what was really said)" if candidate.index == group.real else ""
        print(f"  {line}{note}")
    form = ranking.chat_format.name if ranking.chat_format else "text"
    print(
        f"  {len(ranking)} candidates in the format {form!r} in {ranked.milliseconds:.1f} ms, "
        f"{server.model} version {server.model_versions[-1]} on {server.name} {server.version} "
        f"at {server.url}"
    )


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        default=str(TRAINED),
        help="hub id or folder of a GPT2ForSequenceClassification; default: checkpoints/chitchat",
    )
    # not the checkout's own: the exporter would add the version's facts to its configuration
    parser.add_argument("--repository", type=Path, default=ROOT / "demo" / "model_repository")
    arguments = parser.parse_args()
    try:
        run(arguments.checkpoint, arguments.repository)
    except RewardError as error:
        say(f"demo: {error}")
        return 1
    print(
        "\nTo try it in a browser, serve it and open the playground, http://127.0.0.1:5000:\n"
        f"  {PROGRAM} serve --repository {arguments.repository} &\n"
        f"  {PROGRAM} gateway"
    )
    if arguments.checkpoint == str(TRAINED):
        print(
            "\nThe model is the small checkpoints/chitchat, not trained on these conversations.\n"
            "For one that was trained on what users accepted:\n"
            "  make demo CHECKPOINT=ChaiML/gpt2_medium_retry_and_continue_12m_reward_model"
        )
    return 0


def run(checkpoint: str, repository: Path) -> None:
    """Export, serve, score, stop."""
    publish(checkpoint, repository)
    say("starting tritonserver")
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as running, connected(running.grpc_url) as client:
        server = client.connect()
        client.score(["warm-up"])  # the first call pays for the model's memory
        found = [rank(group, client) for group in groups()]
    for ranked in sorted(found, key=lambda one: one.lead, reverse=True)[:N_SHOWN]:
        show(ranked, server)
    n_real = sum(ranked.ranking.best.index == ranked.group.real for ranked in found)
    print(
        f"\nThese are the {N_SHOWN} of {len(found)} conversations in which the first is furthest "
        f"ahead. In {n_real} of the {len(found)},\nwhat was really said comes first of "
        f"{N_CANDIDATES}; by chance it would in {len(found) // N_CANDIDATES}."
    )
    say("server stopped")


def connected(url: str) -> RewardClient:
    """A client that renders messages in the model's format, or in a simple one if it has none."""
    with RewardClient(url) as client:
        if client.connect().models[-1].usage.chat_format is not None:
            return RewardClient(url)
    say("the checkpoint names no conversation format: using one message per line")
    return RewardClient(url, chat_format="lines")


def say(line: str) -> None:
    """Print progress to standard error, apart from the results."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
