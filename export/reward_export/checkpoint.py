"""Loads a `GPT2ForSequenceClassification` checkpoint, and says why if it cannot be served."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig
from transformers.models.gpt2 import GPT2Config, GPT2ForSequenceClassification
from transformers.pytorch_utils import Conv1D

from reward_contract import CONTRACT
from reward_export.errors import CheckpointError
from reward_export.graph import Architecture

GELUS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu": "none"}
OLD_BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks, which older transformers saved
TWO_LABELS = 2  # rejected and accepted; their softmax is the score
MODEL_FILES = ("config.json", "*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: the reference, float32, in evaluation mode.
        source: the hub id or folder it came from, as given.
        revision: the hub's commit, or `sha256:` of a folder's weight files.
        architecture: what the graph is built from.
        hub_revision: the revision that was given; None for folders and default branches.
    """

    model: GPT2ForSequenceClassification
    source: str
    revision: str
    architecture: Architecture
    hub_revision: str | None = None

    @property
    def head(self) -> str:
        """How the reward comes from the model's logits, for the manifest."""
        return "logit" if self.model.num_labels == 1 else "logit 1 minus logit 0"

    def weights(self) -> Mapping[str, NDArray[np.float32]]:
        """The state dict as float32 arrays, with a head of one output.

        Two outputs are folded into their difference, whose sigmoid is the softmax of the second.
        All but a folded head share the model's memory.
        """
        weights = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        if self.model.num_labels == TWO_LABELS:
            rejected, accepted = weights["score.weight"]
            weights["score.weight"] = (accepted - rejected)[None]
        return weights

    def rewards(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Rewards as by the card's snippet: [B, S] int32 ids to [B, 1] float32 logits.

        For a model with two outputs, the second minus the first.
        """
        tokens = torch.from_numpy(ids.astype(np.int64))
        # all ones: the mask cannot change the answer, and passing one avoids a warning
        with torch.inference_mode():
            logits = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        if self.model.num_labels == TWO_LABELS:
            logits = logits[:, 1:] - logits[:, :1]
        return np.asarray(logits.numpy(), np.float32)

    def largest_inputs(
        self, batches: Iterable[NDArray[np.int32]]
    ) -> dict[str, NDArray[np.float32]]:
        """The largest magnitude in each input channel of each linear module of the blocks.

        Args:
            batches: int32 [B, S] each, to run the model on.

        Returns:
            float32 [I] by the module's name, such as `transformer.h.0.mlp.c_fc`.
        """
        largest: dict[str, NDArray[np.float32]] = {}

        def look(name: str, given: torch.Tensor, _made: torch.Tensor) -> None:
            seen = given.abs().amax(0).numpy()
            largest[name] = np.maximum(largest.get(name, 0), seen)

        self._watch(batches, look, (Conv1D,))
        return largest

    def largest_activation(self, batches: Iterable[NDArray[np.int32]]) -> float:
        """The largest magnitude around a linear module or in the residual stream.

        Args:
            batches: int32 [B, S] each, to run the model on.
        """
        largest = 0.0

        def look(_name: str, given: torch.Tensor, made: torch.Tensor) -> None:
            nonlocal largest
            largest = max(largest, float(given.abs().max()), float(made.abs().max()))

        # what goes into the norms is the residual stream
        self._watch(batches, look, (Conv1D, torch.nn.LayerNorm))
        return largest

    def _watch(
        self,
        batches: Iterable[NDArray[np.int32]],
        look: Callable[[str, torch.Tensor, torch.Tensor], None],
        kinds: tuple[type[torch.nn.Module], ...],
    ) -> None:
        """Run the model, and show the name, input [T, I] and output [T, O] of modules of a kind.

        T counts the tokens up to each row's scored one: what follows is padding.
        """
        used = torch.empty(0)

        def hook_of(name: str) -> Callable[..., None]:
            return lambda _module, inputs, output: look(name, inputs[0][used], output[used])

        hooks = [
            module.register_forward_hook(hook_of(name))
            for name, module in self.model.named_modules()
            if isinstance(module, kinds)
        ]
        try:
            for ids in batches:
                real = torch.from_numpy(ids != CONTRACT.pad_token_id)
                used = real.flip(1).cumsum(1).flip(1) > 0  # [B, S]: a real token here or later
                used[:, 0] = True
                self.rewards(ids)
        finally:
            for hook in hooks:
                hook.remove()


def load(source: str, *, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint from the hub or a folder.

    Args:
        source: hub id or folder, with `.safetensors` or `.bin` weights.
        revision: branch, tag or commit on the hub; its default branch if None.

    Raises:
        CheckpointError: the checkpoint is not there, is not a GPT-2 classifier with one output or
            two, has no trained head, or has weights that would be left out; its pad id, vocabulary
            or positions do not fit the contract; or a weight is NaN or infinite.
    """
    config = _config(source, revision)
    architecture = _architecture(config, source)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, output_loading_info=True
        )
    except Exception as error:  # unpickling and parsing raise many kinds
        raise CheckpointError(f"cannot load the weights of {source}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{source} lacks {len(missing)} trained weights, {missing[0]} among them; without "
            "them its rewards would be random. Export a checkpoint saved by "
            "GPT2ForSequenceClassification.save_pretrained"
        )
    left_out = (name for name in report["unexpected_keys"] if not name.endswith(OLD_BUFFERS))
    if unexpected := sorted(left_out):
        raise CheckpointError(
            f"{source} holds {len(unexpected)} weights that GPT2ForSequenceClassification does "
            f"not have, {unexpected[0]} among them; without them its rewards would differ. "
            "Merge adapters, and export what GPT2ForSequenceClassification.save_pretrained wrote"
        )
    _check_finite(model, source)
    return Checkpoint(
        model.float().eval(),
        source,
        getattr(config, "_commit_hash", None) or revision_of(Path(source)),
        architecture,
        revision,
    )


def _check_finite(model: GPT2ForSequenceClassification, source: str) -> None:
    """Check every weight: the texts that are compared later use few of the embeddings."""
    for name, tensor in model.state_dict().items():
        if n_bad := int((~torch.isfinite(tensor)).sum()):
            raise CheckpointError(
                f"{source} has {n_bad} of {tensor.numel()} values in {name} that are NaN or "
                "infinite; so would be the rewards of texts that use them"
            )


def _config(source: str, revision: str | None) -> GPT2Config:
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{source} has no config.json; give a folder with a checkpoint")
    if not folder.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise CheckpointError(f"there is no folder {source}")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is neither a folder here nor a model that could be fetched from the hub: "
            f"{_first_line(error)}"
        ) from error
    if not isinstance(config, GPT2Config):
        raise CheckpointError(
            f"{source} is a {config.model_type} model; only GPT-2 classifiers "
            "(GPT2ForSequenceClassification) can be exported"
        )
    return config


def _architecture(config: GPT2Config, source: str) -> Architecture:
    """The sizes, after a check of everything that the contract or the graph relies on."""
    _check_head(config, source)
    _check_contract(config, source)
    if config.activation_function not in GELUS or config.add_cross_attention:
        raise CheckpointError(
            f"{source} is not a plain GPT-2: activation_function is "
            f"{config.activation_function!r} (known: {', '.join(GELUS)}), "
            f"add_cross_attention is {config.add_cross_attention} (known: False)"
        )
    return Architecture(
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        n_positions=config.n_positions,
        vocab_size=config.vocab_size,
        layer_norm_epsilon=config.layer_norm_epsilon,
        attention_scales=tuple(_attention_scale(config, i) for i in range(config.n_layer)),
        gelu=GELUS[config.activation_function],
    )


def _check_head(config: GPT2Config, source: str) -> None:
    """Accept one logit, or two whose softmax is the score: nothing else is a single logit."""
    if config.num_labels not in {1, TWO_LABELS}:
        raise CheckpointError(
            f"{source} has {config.num_labels} outputs; a reward is one logit (num_labels=1), or "
            "the difference of two. The mean sigmoid of several labels is not a logit, and the "
            "graph returns nothing but logits: train a head with one output on that mean"
        )
    if config.num_labels == TWO_LABELS and config.problem_type == "multi_label_classification":
        raise CheckpointError(
            f"{source} has two labels that do not exclude each other (problem_type "
            f"{config.problem_type!r}), so their difference is not the logit of "
            "either; train a head with one output"
        )


def _check_contract(config: GPT2Config, source: str) -> None:
    if config.pad_token_id is None:
        raise CheckpointError(
            f"{source} does not say which token is the pad, so the end of a row is "
            f'unknown; add "pad_token_id": {CONTRACT.pad_token_id} to its config.json'
        )
    for name, found, wanted in (
        ("pad_token_id", config.pad_token_id, CONTRACT.pad_token_id),
        ("vocab_size", config.vocab_size, CONTRACT.vocab_size),
    ):
        if found != wanted:
            raise CheckpointError(
                f"{source} has {name} {found}; the contract with the clients says {wanted}"
            )
    if config.n_positions < CONTRACT.max_tokens:
        raise CheckpointError(
            f"{source} has {config.n_positions} positions; clients send up to "
            f"{CONTRACT.max_tokens} tokens"
        )


def _attention_scale(config: GPT2Config, layer: int) -> float:
    scale = float((config.n_embd // config.n_head) ** -0.5) if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


def revision_of(folder: Path) -> str:
    """Identifies the model in a folder: `sha256:` of its configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
