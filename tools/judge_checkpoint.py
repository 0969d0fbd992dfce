"""Judge a checkpoint on held-out conversations, and write the figures into its model card.

Its probabilities are calibrated on the validation rows, and judged on the test rows before and
after; the calibration is written into its reward.json.

    python tools/judge_checkpoint.py checkpoints/chitchat ROWS_FOLDER

ROWS_FOLDER is what `gpt2-reward rows ROWS_FOLDER --chitchat` wrote. The checkpoint is exported
and run as it is served, in float32. Baselines score the same groups.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reward_contract import INPUT_IDS, REWARD
from reward_export.export import GRAPH_NAME, ExportOptions, export
from reward_export.parity import open_session
from reward_text import Calibration, Tokenizer, Usage
from reward_text.usage import USAGE_NAME
from reward_train.dialogues import LabelledGroup
from reward_train.evaluate.calibration import fitted
from reward_train.evaluate.groups import read_groups
from reward_train.evaluate.quality import SIZES, Scored, quality
from reward_train.metrics import calibration_error, roc_auc, sigmoid

BATCH = 128
BEGIN, END = "<!-- figures: tools/judge_checkpoint.py -->", "<!-- end of figures -->"
WORD = re.compile(r"[a-z']+")

Score = Callable[[str, Sequence[str]], NDArray[np.float32]]


def model_score(graph: Path) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """A function that gives texts their rewards, in this process."""
    session, tokenizer = open_session(graph), Tokenizer()

    def rewards(texts: Sequence[str]) -> NDArray[np.float32]:
        (found,) = session.run([REWARD.name], {INPUT_IDS.name: tokenizer.encode_rows(texts)})
        return np.asarray(found[:, 0], np.float32)

    return rewards


def word_overlap(context: str, candidates: Sequence[str]) -> NDArray[np.float32]:
    """Share of each candidate's words that occur at the end of the context."""
    heard = set(WORD.findall(context[-400:].lower()))
    said = [set(WORD.findall(candidate.lower())) for candidate in candidates]
    return np.array([len(words & heard) / (1 + len(words)) for words in said], np.float32)


def longest(_context: str, candidates: Sequence[str]) -> NDArray[np.float32]:
    """Number of characters of each candidate."""
    return np.array([len(candidate) for candidate in candidates], np.float32)


def chance() -> Score:
    """A score of random numbers, always the same ones."""
    draw = random.Random(0)  # noqa: S311  # no secret

    def score(_context: str, candidates: Sequence[str]) -> NDArray[np.float32]:
        return np.array([draw.random() for _ in candidates], np.float32)

    return score


def judge_groups(groups: Sequence[LabelledGroup], score: Score) -> dict[str, float]:
    """How often the real reply comes first among N candidates, and beats a single one."""
    found = quality([Scored(score(one.context, one.candidates), one.best) for one in tqdm(groups)])
    shares = {f"first_of_{n}": one.mean for n, one in found.first_of.items()}
    shares["pairwise"] = found.pairwise.mean
    return {name: round(share, 4) for name, share in shares.items()}


def score_rows(
    lines: Iterator[dict[str, Any]], rewards_of: Callable[[Sequence[str]], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Rewards, labels and kinds of rows, [n] each."""
    rewards, labels, kinds = [], [], []
    with tqdm() as bar:
        while batch := list(islice(lines, BATCH)):
            rewards.append(rewards_of([row["context"] + row["candidate"] for row in batch]))
            labels += [row["label"] for row in batch]
            kinds += [row["kind"] for row in batch]
            bar.update(len(batch))
    return np.concatenate(rewards), np.array(labels), np.array(kinds)


def judge_rows(
    values: NDArray[np.float32], truth: NDArray[Any], kind: NDArray[Any], calibration: Calibration
) -> dict[str, float]:
    """ROC AUC and calibration over the rows of the test split, by what made a row negative."""
    found = {
        "rows": len(truth),
        "accepted": round(float(truth.mean()), 4),
        "roc_auc": round(roc_auc(values, truth), 4),
        "calibration_error": round(calibration_error(sigmoid(values), truth), 4),
        "calibration_error_after": round(
            calibration_error(calibration.probabilities(values), truth), 4
        ),
    }
    for name in ("other", "other-of-like-length", "ended"):
        chosen = (kind == "continued") | (kind == name)
        found[f"roc_auc_against_{name}"] = round(roc_auc(values[chosen], truth[chosen]), 4)
    return found


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one per line."""
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def tables(metrics: dict[str, Any]) -> str:
    """The card's two tables."""
    columns = [*(f"first_of_{n}" for n in SIZES), "pairwise"]
    rows = [
        f"{metrics['n_groups']:,} groups of 16 candidates, from the test conversations.",
        "",
        f"| scored by | {' | '.join(f'best of {n}' for n in SIZES)} | beats one |",
        f"|---|{'---|' * len(columns)}",
    ]
    for name, found in metrics["groups"].items():
        rows.append(f"| {name} | " + " | ".join(f"{found[c]:.1%}" for c in columns) + " |")
    found = metrics["test_rows"]
    return "\n".join(
        [
            *rows,
            "",
            f"{found['rows']:,} rows of the test conversations, {found['accepted']:.1%} accepted.",
            "",
            "| figure | value |",
            "|---|---|",
            f"| ROC AUC, all rows | {found['roc_auc']:.3f} |",
            f"| against any other reply | {found['roc_auc_against_other']:.3f} |",
            f"| against one of like length | {found['roc_auc_against_other-of-like-length']:.3f} |",
            f"| against replies that ended the chat | {found['roc_auc_against_ended']:.3f} |",
            f"| expected calibration error, not calibrated | {found['calibration_error']:.3f} |",
            f"| expected calibration error, calibrated | {found['calibration_error_after']:.3f} |",
        ]
    )


def main() -> int:
    """Write metrics.json and the tables of README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("rows", type=Path)
    arguments = parser.parse_args()
    groups = read_groups(arguments.rows / "test-groups.jsonl")
    with TemporaryDirectory() as folder:
        options = ExportOptions(str(arguments.checkpoint), Path(folder))
        published = export(options, lambda line: print(line, file=sys.stderr))
        rewards_of = model_score(published.path / GRAPH_NAME)

        def this_model(context: str, candidates: Sequence[str]) -> NDArray[np.float32]:
            return rewards_of([context + candidate for candidate in candidates])

        scores: dict[str, Score] = {
            "this model": this_model,
            "word overlap with the context": word_overlap,
            "longest reply": longest,
            "random": chance(),
        }
        labelled = score_rows(read(arguments.rows / "validation.jsonl"), rewards_of)
        calibration = fitted(labelled[0], labelled[1])
        metrics = {
            "n_groups": len(groups),
            "groups": {name: judge_groups(groups, score) for name, score in scores.items()},
            "test_rows": judge_rows(
                *score_rows(read(arguments.rows / "test.jsonl"), rewards_of), calibration
            ),
            "calibration": asdict(calibration),
        }
    usage = Usage.read(arguments.checkpoint / USAGE_NAME)
    replace(usage, calibration=calibration).write(arguments.checkpoint)
    (arguments.checkpoint / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    card = arguments.checkpoint / "README.md"
    before, _, rest = card.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    card.write_text(f"{before}{BEGIN}\n\n{tables(metrics)}\n\n{END}{after}", "utf-8")
    print(tables(metrics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
