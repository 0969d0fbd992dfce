"""What crosses the wire, in one place.

Exporter, model repository, server and client all read it from here. Three locks
keep them together: a test compares `config.pbtxt` with it, the exporter checks the
graph's inputs and outputs against it, and the client compares the server's
configuration with it before it sends anything.

Standard library only, so that everybody can afford to import it.
"""

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the served model.

    Attributes:
        name: its name in the graph and on the wire.
        dtype: Triton's name of the element type, for example ``INT32``.
        dims: sizes without the batch dimension, -1 where any size goes.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]


INPUT_IDS = TensorSpec("input_ids", "INT32", (-1,))
"""GPT-2 token ids, [batch, sequence], padded on the right with `Contract.pad_token_id`."""

REWARD = TensorSpec("reward", "FP32", (1,))
"""One raw logit a row, [batch, 1]; higher is better. NaN where the row could not be scored."""

MODEL_NAME = "gpt2_reward"
"""Folder under the model repository, and the name that clients ask for."""

Priority: TypeAlias = Literal["interactive", "bulk"]
"""What a call is for: somebody waits for the answer, or nobody does."""

PRIORITY_LEVELS: dict[Priority, int] = {"interactive": 1, "bulk": 2}
"""Triton's priority levels; a lower number is served first."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The numbers that both ends must agree on, carried as parameters of the served model.

    Attributes:
        max_tokens: tokens of a row that are scored; longer texts lose their beginning.
        pad_token_id: fills rows on the right, and is GPT-2's ``<|endoftext|>``.
        vocab_size: ids run from 0 to `vocab_size` - 1.
        tokenizer_sha256: SHA-256 of `encoder.json` followed by `vocab.bpe`.
        scored_position: which position's logit is the reward. `rightmost_non_pad` is
            `transformers`' rule since its pull request 35911 (4.49, 2025): the
            rightmost token that is not `pad_token_id`, or position 0 where there is none.

    Source: the model card of ChaiML/gpt2_medium_retry_and_continue_12m_reward_model
    (tokenizer, padding, truncation to 256).
    """

    max_tokens: int = 256
    pad_token_id: int = 50256
    vocab_size: int = 50257
    tokenizer_sha256: str = "00f404d36600411e497efb3df08d3b4e094f0820e2595afcb7cbd0c4353d4fcb"
    scored_position: str = "rightmost_non_pad"

    def as_parameters(self) -> dict[str, str]:
        """The contract as Triton model parameters, name to string value."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    def differences(self, parameters: dict[str, str]) -> list[str]:
        """What a server's parameters say otherwise, one readable line for each; [] if nothing.

        A parameter that is missing counts as different: a server that does not state
        its contract may follow any.
        """
        return [
            f"{name}: server has {parameters.get(name, 'nothing')}, client has {value}"
            for name, value in self.as_parameters().items()
            if parameters.get(name) != value
        ]


CONTRACT = Contract()
"""The contract of the published reward model."""
