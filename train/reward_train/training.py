"""Fine-tunes a GPT-2 classifier as the model card did, with `transformers`' Trainer.

The card's figures are the defaults: binary cross entropy, learning rate 1e-5, 16 rows per
device (on 4 devices), 2 epochs.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.models.gpt2 import GPT2ForSequenceClassification

from reward_contract import CONTRACT
from reward_text import Usage
from reward_train.errors import StartError, TrainError
from reward_train.metrics import calibration_error, pairwise_accuracy, roc_auc, sigmoid
from reward_train.model import PackedClassifier
from reward_train.packing import NO_LABEL, collate
from reward_train.retrieval import Pair, retrieval_embeddings
from reward_train.rows import RowRules, packed_items, read_rows
from reward_train.scratch import Scratch, classifier_from_scratch

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of a training run; the card's figures are the defaults.

    Attributes:
        rows: file or hub id of labelled rows.
        output: folder of the checkpoint; intermediate ones are in its `steps/`.
        base: hub id or folder of a GPT-2 to start from, with a head or without.
        scratch: a small new model to start from instead of `base`.
        validation: file or hub id of rows that are not trained on.
        rules: how rows become labels and items.
        learning_rate: at its peak.
        scheduler: how the learning rate falls, a name of `transformers.SchedulerType`.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        batch_size: items per device and step.
        accumulation: steps whose gradients are added up.
        epochs: passes over all rows.
        precision: of the forward and backward pass; weights stay float32.
        token_loss: weight of the loss of every candidate token.
        embedding_epochs: passes that train the embeddings before everything else, from scratch.
        seed: of order and weights.
        eval_steps: optimiser steps between two evaluations and intermediate checkpoints.
        resume: continue from the newest intermediate checkpoint.
        save_dtype: of the weights written.
    """

    rows: str
    output: Path
    base: str | None = None
    scratch: Scratch | None = None
    validation: str | None = None
    rules: RowRules = field(default_factory=RowRules)
    learning_rate: float = 1e-5
    scheduler: str = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 16
    accumulation: int = 1
    epochs: float = 2.0
    precision: Precision = "fp32"
    token_loss: float = 0.0
    embedding_epochs: int = 3
    seed: int = 0
    eval_steps: int = 1000
    resume: bool = False
    save_dtype: Literal["float32", "float16"] = "float32"


def train(options: TrainOptions, say: Callable[[str], None]) -> dict[str, float] | None:
    """Train, and write a checkpoint folder that `gpt2-reward export` takes.

    Args:
        options: of the run.
        say: gets a line of progress now and then, in addition to the Trainer's bar.

    Returns:
        The last evaluation's figures, empty without rows to validate on; None in every process
        but the first of several.

    Raises:
        DataError: the rows cannot be used.
        StartError: there is no such base, or the sizes are impossible.
        TrainError: there is nothing to resume from, or the output folder is taken.
    """
    steps = options.output / "steps"
    last = _last(options, steps)
    arguments = _arguments(options, steps)
    is_first = arguments.process_index == 0
    say = say if is_first else _nothing
    with arguments.main_process_first():
        items, held_out = _data(options)
    say(f"{len(items):,} items of {sum(items['length']):,} tokens to train on")
    model = _start(options, items, say)
    _check_window(model, options.rules)
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=items,
        eval_dataset=held_out,
        compute_metrics=figures,
    )
    trainer.train(resume_from_checkpoint=last)
    found = trainer.evaluate() if held_out is not None else {}
    if not is_first:
        return None
    save(model, options.output, DTYPES[options.save_dtype])
    if options.rules.usage != Usage():
        options.rules.usage.write(options.output)
    shutil.rmtree(options.output / "tokens")
    return {name: value for name, value in found.items() if isinstance(value, float)}


def _check_window(model: GPT2ForSequenceClassification, rules: RowRules) -> None:
    if rules.max_tokens > model.config.n_positions:
        raise StartError(
            f"the model has {model.config.n_positions} positions, and cannot read windows of "
            f"{rules.max_tokens} tokens; use --max-tokens {model.config.n_positions} or fewer"
        )


def save(model: PackedClassifier, folder: Path, dtype: torch.dtype) -> None:
    """Write a plain `GPT2ForSequenceClassification` with the model's weights."""
    plain = GPT2ForSequenceClassification(model.config)
    plain.load_state_dict(model.state_dict())
    torch.nn.Module.to(plain, dtype)  # its own `to` is typed without arguments
    plain.save_pretrained(folder)


def figures(prediction: EvalPrediction) -> dict[str, float]:
    """ROC AUC, pairwise accuracy within items, and calibration error of held-out rows."""
    logits, labels = prediction.predictions, prediction.label_ids
    labels = labels[0] if isinstance(labels, tuple) else labels  # token_labels come along
    known = labels != NO_LABEL
    return {
        "roc_auc": roc_auc(logits[known], labels[known]),
        "pairwise_accuracy": pairwise_accuracy(
            [(one[mask], y[mask]) for one, y, mask in zip(logits, labels, known, strict=True)]
        ),
        "calibration_error": calibration_error(sigmoid(logits[known]), labels[known]),
    }


def _nothing(_line: str) -> None:
    """Discard a line: only the first process reports."""


def _last(options: TrainOptions, steps: Path) -> str | None:
    """The intermediate checkpoint to continue from, if any."""
    if (options.output / "config.json").exists():
        raise TrainError(f"{options.output} holds a checkpoint already; choose another folder")
    written = sorted(steps.glob("checkpoint-*"), key=lambda one: int(one.name.rpartition("-")[2]))
    if written and not options.resume:
        raise TrainError(f"{steps} is from a run that did not finish; resume it, or remove it")
    whole = [str(folder) for folder in written if _is_whole(folder)]
    if options.resume and not whole:
        raise TrainError(f"{steps} has no intermediate checkpoint to resume from")
    return whole[-1] if whole else None


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint is complete: the Trainer, which may be killed, writes its state last."""
    try:
        json.loads((folder / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _arguments(options: TrainOptions, steps: Path) -> TrainingArguments:
    evaluates = "steps" if options.validation is not None else "no"
    return TrainingArguments(
        output_dir=str(steps),
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=options.warmup,  # below 1, a share
        weight_decay=options.weight_decay,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        num_train_epochs=options.epochs,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        label_names=["labels"],
        remove_unused_columns=False,
        eval_strategy=evaluates,
        eval_steps=options.eval_steps,
        save_steps=options.eval_steps,
        save_total_limit=2,
        logging_steps=100,
        report_to="none",
        ddp_find_unused_parameters=False,
        seed=options.seed,
    )


def _data(options: TrainOptions) -> tuple[Dataset, Dataset | None]:
    tokens = options.output / "tokens"
    items = packed_items(read_rows(options.rows), options.rules, tokens)
    if options.validation is None:
        return items, None
    rows = read_rows(options.validation, split="validation")
    return items, packed_items(rows, options.rules, tokens)


def _start(options: TrainOptions, items: Dataset, say: Callable[[str], None]) -> PackedClassifier:
    """The model before its first step, with the attention that suits the device."""
    if options.scratch is not None:
        embeddings = retrieval_embeddings(
            accepted_pairs(items),
            (CONTRACT.vocab_size, options.scratch.shape.n_embd // 2),
            epochs=options.embedding_epochs,
            seed=options.scratch.seed,
            say=say,
        )
        model = classifier_from_scratch(options.scratch, embeddings)
    else:
        model = _pretrained(options.base)
    # PyTorch's fused attention is several times slower on CPUs with such masks
    model.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    model.token_loss = options.token_loss
    return model


def _pretrained(base: str | None) -> PackedClassifier:
    if base is None:
        raise StartError("name a base checkpoint, or sizes to start from scratch")
    try:
        model: PackedClassifier = PackedClassifier.from_pretrained(
            base, num_labels=1, pad_token_id=CONTRACT.pad_token_id, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise StartError(f"cannot start from {base}: {reason}") from error
    return model


def accepted_pairs(items: Dataset) -> list[Pair]:
    """Tokens of context and candidate of each accepted row that has both."""
    pairs = []
    for item in items:
        ids, parents = np.array(item["input_ids"]), item["parents"]
        own = np.array(item["token_labels"]) != NO_LABEL
        for place, label in zip(item["scored"], item["labels"], strict=True):
            if label != 1:
                continue
            path = []
            while place >= 0:
                path.append(place)
                place = parents[place]  # noqa: PLW2901  # a walk to the root
            path.reverse()
            start = len(path)
            while start and own[path[start - 1]]:
                start -= 1
            context, reply = ids[path[:start]].tolist(), ids[path[start:]].tolist()
            if context and reply:
                pairs.append((context, reply))
    return pairs
