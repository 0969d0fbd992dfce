"""What a float16 residual stream does to rewards if a few channels outgrow the others.

In random checkpoints, four channels grow from block to block until they are larger than the others
by a given factor, as a few of GPT-2's do. Rewards with the rounding of a GPU, as the exporter
emulates it, are compared with PyTorch's in float32: once with the residual stream in float16, and
once with it in float32 and all else the same.
"""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from transformers import GPT2ForSequenceClassification

from reward_bench.suite import GRAPH, Report, Setting, Suite, option, say
from reward_export.batches import groups_of_candidates
from reward_export.checkpoint import Checkpoint, load
from reward_export.float16 import RoundedLayers, RoundedLinear, RoundedLooped
from reward_export.graph import Layers, Stream, build
from reward_export.parity import open_session
from reward_export.precision import PRECISIONS
from reward_export.random_checkpoint import random_checkpoint
from reward_export.ranks import spearman

N_OUTLIERS = 4  # channels
STREAMS: dict[str, type[Layers]]


@dataclass(frozen=True)
class Options:
    """Which checkpoints."""

    factors: tuple[int, ...] = option(
        (0, 20, 100, 300, 1000),
        "how many times larger than the others the channels become",
        quick=(0, 300),
        kind=int,
    )
    layers: int = option(24, "blocks", quick=3, kind=int)
    hidden: int = option(256, "hidden size", quick=64, kind=int)
    groups: int = option(4, "groups of eight real candidates", quick=2, kind=int)


class Float32Stream(RoundedLayers):
    """`float16.RoundedLayers`, but for the residual stream, which is not rounded."""

    def embed(self, tokens: ir.Value, positions: ir.Value) -> Stream:
        """See `Layers`."""
        return Layers.embed(self, tokens, positions)

    def update(self, hidden: ir.Value, x: ir.Value, name: str) -> Stream:
        """See `Layers`."""
        op, bias = self.op, self.weight(f"{name}.bias")
        return Stream(op.Add(op.Add(hidden, self._product(x, name)), bias))


STREAMS = {"float16": RoundedLayers, "float32": Float32Stream}


def run(setting: Setting, own: Options) -> Report:
    """Errors of both streams for each factor, the channels left large or taken back at the end."""
    batches = list(islice(groups_of_candidates(), own.groups))
    found = []
    say("| channels grow to | at the end | float16 stream | float32 stream |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_head = own.hidden // 64
        source = random_checkpoint(
            folder, n_layer=own.layers, n_head=n_head, n_embd=own.hidden, seed=setting.seed
        )
        benign = load(str(source))
        for factor in own.factors:
            for taken_back in (False, True) if factor else (False,):
                model = copy.deepcopy(benign.model)
                with_outliers(model, factor, taken_back=taken_back)
                measured = _measure(replace(benign, model=model), folder, batches)
                found.append({"factor": factor, "taken_back": taken_back, **measured})
                say(line(found[-1]))
    return {
        "layers": own.layers,
        "hidden": own.hidden,
        "rows": sum(map(len, batches)),
        "checkpoints": found,
    }


def _measure(
    checkpoint: Checkpoint, folder: Path, batches: Sequence[NDArray[np.int32]]
) -> dict[str, Any]:
    """The largest activation of one checkpoint, and the errors of each stream."""
    wanted = [checkpoint.rewards(ids)[:, 0] for ids in batches]
    errors = {
        stream: _errors(emulated(checkpoint, stream), folder / stream, batches, wanted)
        for stream in STREAMS
    }
    return {"largest_activation": checkpoint.largest_activation(batches[:1]), **errors}


def with_outliers(model: GPT2ForSequenceClassification, factor: float, *, taken_back: bool) -> None:
    """Make four channels of the residual stream grow, by the same amount in each block.

    Args:
        model: changed in place.
        factor: how large they are after the last block, in standard deviations of the others.
        taken_back: whether the last block subtracts what the others have added.
    """
    with torch.no_grad():
        ids = torch.from_numpy(next(groups_of_candidates()).astype(np.int64))
        seen = torch.ones_like(ids)
        states = model.transformer(
            ids, attention_mask=seen, output_hidden_states=True
        ).hidden_states
        size = factor * float(states[-2].std())
        channels = torch.randperm(model.config.n_embd, generator=torch.Generator().manual_seed(0))[
            :N_OUTLIERS
        ]
        push = torch.zeros(model.config.n_embd)
        push[channels] = size * torch.tensor([1.0, -1.0, 0.7, -0.7])
        *growing, last = (
            parameter
            for name, parameter in model.named_parameters()
            if name.endswith("mlp.c_proj.bias")
        )
        if taken_back:
            last.sub_(push)
        else:
            growing.append(last)
        for bias in growing:
            bias.add_(push / len(growing))


def emulated(checkpoint: Checkpoint, stream: str) -> ir.Model:
    """The float16 graph as a GPU rounds it, with the residual stream of this type."""
    return build(
        checkpoint.architecture,
        checkpoint.weights(),
        RoundedLinear(),
        RoundedLooped,
        STREAMS[stream],
    )


def _errors(
    model: ir.Model,
    path: Path,
    batches: Sequence[NDArray[np.int32]],
    wanted: Sequence[NDArray[np.float32]],
) -> dict[str, float | bool]:
    """Errors in standard deviations of the rewards, and whether the exporter would accept them."""
    ir.save(model, path)
    session, tolerance = open_session(path), PRECISIONS["fp16"].tolerance
    found = [session.run(None, {"input_ids": ids})[0][:, 0] for ids in batches]
    right, rewards = np.concatenate(wanted), np.concatenate(found)
    worst = float(np.abs(rewards - right).max() / right.std())
    ranks = spearman(right, rewards)
    passes = worst <= tolerance.max_difference and ranks >= tolerance.spearman
    return {"max_error_in_stds": worst, "spearman": ranks, "passes": bool(passes)}


def line(found: dict[str, Any]) -> str:
    """A checkpoint's line of the table in docs/precision.md."""
    end = ("taken back" if found["taken_back"] else "stay") if found["factor"] else ""
    cells = [_cell(found[stream]) for stream in STREAMS]
    return f"| {found['factor']:,} | {end} | {' | '.join(cells)} |"


def _cell(errors: dict[str, Any]) -> str:
    return f"{errors['max_error_in_stds']:.2g}{'' if errors['passes'] else ', refused'}"


SUITE = Suite(
    name="stream",
    about="emulated: a float16 residual stream against a float32 one, with outlier channels",
    file="stream.json",
    measures=GRAPH,
    takes=frozenset({"seed"}),
    options=Options,
    run=run,
)
