"""What `shared_context` saves, and how often it chooses another reply than `left`.

    python bench/truncation.py --checkpoint FOLDER --output bench/results/truncation.json

Real conversations beyond 256 tokens, best-of-8: the real reply among those of others. Both
policies run in turn in one session; a group's time is the minimum over the rounds.
"""

import argparse
import json
import os
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from machine import describe
from workloads import n_unique

from reward_client import Tokenizer, Truncation
from reward_export.checkpoint import load
from reward_export.graph import build
from reward_export.random_checkpoint import random_checkpoint

POLICIES: tuple[Truncation, ...] = ("left", "shared_context")
MIN_CHARACTERS = 2000  # beyond 256 tokens for sure
N_CANDIDATES = 8


def long_groups(n_groups: int, seed: int) -> list[tuple[str, list[str]]]:
    """Contexts of real dialogues, each with its next turn and seven turns of other dialogues."""
    text = (resources.files("chitchat_dataset") / "dataset.json").read_text("utf-8")
    dialogues = [
        [" ".join(message["text"] for message in turn) for turn in dialogue["messages"]]
        for dialogue in json.loads(text).values()
    ]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dialogues))
    turns = [turn for dialogue in dialogues for turn in dialogue[1:]]
    groups: list[tuple[str, list[str]]] = []
    for index in order:
        dialogue = dialogues[index]
        contexts = ["\n".join(dialogue[:end]) + "\n" for end in range(1, len(dialogue))]
        ends = [end for end, context in enumerate(contexts, 1) if len(context) > MIN_CHARACTERS]
        if ends:
            others = [turns[i] for i in rng.integers(0, len(turns), N_CANDIDATES - 1)]
            groups.append((contexts[ends[0] - 1], [dialogue[ends[0]], *others]))
        if len(groups) == n_groups:
            break
    return groups


def main() -> None:
    """Run both policies, print the figures, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", help="hub id or folder; GPT-2 small's shape at random if none"
    )
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = given.checkpoint or str(
            random_checkpoint(Path(folder) / "checkpoint", n_layer=12, n_head=12, n_embd=768)
        )
        session = open_session(source, Path(folder) / "model.onnx", given.threads)
        groups = long_groups(given.groups, given.seed)
        report = {
            **describe(given.threads),
            "checkpoint": given.checkpoint or "random weights, 12 layers of 768",
            "groups": len(groups),
            "candidates": N_CANDIDATES,
            "rounds": given.rounds,
            "seed": given.seed,
            **compare(session, groups, given.rounds),
        }
    print(json.dumps(report, indent=1))
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n")


def open_session(source: str, file: Path, threads: int) -> onnxruntime.InferenceSession:
    """The float32 graph of a checkpoint, on the CPU."""
    checkpoint = load(source)
    ir.save(build(checkpoint.architecture, checkpoint.weights()), file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def compare(
    session: onnxruntime.InferenceSession, groups: list[tuple[str, list[str]]], rounds: int
) -> dict[str, object]:
    """Times, tokens and choices of both policies."""
    tokenizer = Tokenizer()
    seconds, tokens = dict.fromkeys(POLICIES, 0.0), dict.fromkeys(POLICIES, 0)
    speed_ups, n_other_best, differences = [], 0, []
    for context, candidates in groups:
        rows = {name: tokenizer.encode_group(context, candidates, name).ids for name in POLICIES}
        best_times = dict.fromkeys(POLICIES, float("inf"))
        rewards = {}
        for _ in range(rounds + 1):  # the first warms up; as a minimum it does no harm
            for name in POLICIES:
                start = time.perf_counter()
                rewards[name] = session.run(None, {"input_ids": rows[name]})[0][:, 0]
                best_times[name] = min(best_times[name], time.perf_counter() - start)
        left, shared = (rewards[name] for name in POLICIES)
        n_other_best += int(left.argmax() != shared.argmax())
        differences.append(float(np.abs(left - shared).mean()))
        speed_ups.append(best_times["left"] / best_times["shared_context"])
        for name in POLICIES:
            seconds[name] += best_times[name]
            tokens[name] += n_unique(list(rows[name]))
    return {
        "ms_a_group": {name: 1e3 * seconds[name] / len(groups) for name in POLICIES},
        "unique_tokens_a_group": {name: tokens[name] / len(groups) for name in POLICIES},
        "speed_up": seconds["left"] / seconds["shared_context"],
        "speed_up_of_groups": np.quantile(speed_ups, [0.1, 0.5, 0.9]).tolist(),
        "other_best": n_other_best,
        "mean_difference": float(np.mean(differences)),
    }


if __name__ == "__main__":
    main()
