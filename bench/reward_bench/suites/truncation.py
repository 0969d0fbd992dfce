"""What `shared_context` saves, and how often it chooses a different reply from `left`.

Real conversations of more than 256 tokens, best-of-8: the real reply among those of others. Both
policies run in turn in one session; a group's time is the minimum over the rounds.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from reward_bench.checkpoints import checkpoint_of
from reward_bench.suite import GRAPH, SHAPES, Report, Setting, Suite, option, say
from reward_bench.texts import N_CANDIDATES, Texts, long_groups
from reward_bench.workloads import n_unique
from reward_client import Tokenizer, Truncation
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS

POLICIES: tuple[Truncation, ...] = ("left", "shared_context")


@dataclass(frozen=True)
class Options:
    """How many conversations."""

    groups: int = option(40, "conversations of more than 256 tokens", quick=4, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """Measure both policies over the same groups."""
    with tempfile.TemporaryDirectory() as folder:
        source = checkpoint_of(setting, Path(folder) / "checkpoint")
        session = open_session(source, Path(folder) / "model.onnx", setting.threads)
        groups = long_groups(own.groups, setting.seed)
        found = compare(session, groups, setting.rounds)
    say(str(found))
    n_layer, _, n_embd = SHAPES[setting.shape]
    return {
        "checkpoint": setting.checkpoint or f"random weights, {n_layer} layers of {n_embd}",
        "groups": len(groups),
        "candidates": N_CANDIDATES,
        **found,
    }


def open_session(source: str, file: Path, threads: int) -> onnxruntime.InferenceSession:
    """The float32 graph of a checkpoint, on the CPU."""
    checkpoint = load(source)
    ir.save(PRECISIONS["fp32"].build(checkpoint), file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def compare(session: onnxruntime.InferenceSession, groups: Sequence[Texts], rounds: int) -> Report:
    """Times, tokens and choices of both policies."""
    tokenizer = Tokenizer()
    seconds, tokens = dict.fromkeys(POLICIES, 0.0), dict.fromkeys(POLICIES, 0)
    speed_ups, n_other_best, differences = [], 0, []
    for context, candidates in groups:
        rows = {name: tokenizer.encode_group(context, candidates, name).ids for name in POLICIES}
        best_times = dict.fromkeys(POLICIES, float("inf"))
        rewards = {}
        for _ in range(rounds + 1):  # the first warms up; the minimum leaves it out
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


SUITE = Suite(
    name="truncation",
    about="in process: what the policy shared_context saves and changes",
    file="truncation.json",
    measures=(*GRAPH, "client/reward_text"),
    takes=frozenset({"shape", "checkpoint", "seed", "rounds", "threads"}),
    options=Options,
    run=run,
)
