"""What crosses the wire, in one place.

Exporter, model repository, server and client all read it from here. Three checks
keep them in step: a test compares `config.pbtxt` with it, the exporter checks the
graph's inputs and outputs against it, and the client compares the server's
configuration with it before it sends anything.

Plain classes: importing `dataclasses` or `typing` takes longer than everything else here.
"""


class Frozen:
    """Attributes that `__init__` sets once, and that nothing changes afterwards."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__:
            raise AttributeError(f"{name} of {type(self).__name__} is already set; make another")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


class TensorSpec(Frozen):
    """One tensor of the served model.

    Attributes:
        name: its name in the graph and on the wire.
        dtype: Triton's name for the element type, for example ``INT32``.
        dims: sizes without the batch dimension, -1 if any size is allowed.
    """

    def __init__(self, name: str, dtype: str, dims: tuple[int, ...]) -> None:
        self.name = name
        self.dtype = dtype
        self.dims = dims


INPUT_IDS = TensorSpec("input_ids", "INT32", (-1,))
"""GPT-2 token ids, [batch, sequence], padded on the right with `Contract.pad_token_id`."""

REWARD = TensorSpec("reward", "FP32", (1,))
"""One raw logit per row, [batch, 1]; higher is better. NaN if the row could not be scored."""

MODEL_NAME = "gpt2_reward"
"""Folder under the model repository, and the name that clients ask for."""

PRIORITY_LEVELS = {"interactive": 1, "bulk": 2}
"""Triton's priority levels by what a call is for; a lower number is served first."""


class Contract(Frozen):
    """The numbers that both ends must agree on, carried as parameters of the served model.

    Attributes:
        max_tokens: tokens of a row that are scored; longer texts lose their beginning.
        pad_token_id: fills rows on the right, and is GPT-2's ``<|endoftext|>``.
        vocab_size: ids run from 0 to `vocab_size` - 1.
        tokenizer_sha256: SHA-256 of `encoder.json` followed by `vocab.bpe`.
        scored_position: which position's logit is the reward. `rightmost_non_pad` is
            `transformers`' rule since its pull request 35911 (4.49, 2025): the
            rightmost token that is not `pad_token_id`, or position 0 if there is none.

    Source: the model card of ChaiML/gpt2_medium_retry_and_continue_12m_reward_model
    (tokenizer, padding, truncation to 256).
    """

    def __init__(
        self,
        *,
        max_tokens: int = 256,
        pad_token_id: int = 50256,
        vocab_size: int = 50257,
        tokenizer_sha256: str = "00f404d36600411e497efb3df08d3b4e094f0820e2595afcb7cbd0c4353d4fcb",
        scored_position: str = "rightmost_non_pad",
    ) -> None:
        self.max_tokens = max_tokens
        self.pad_token_id = pad_token_id
        self.vocab_size = vocab_size
        self.tokenizer_sha256 = tokenizer_sha256
        self.scored_position = scored_position

    def as_parameters(self) -> dict[str, str]:
        """The contract as Triton model parameters, name to string value."""
        return {name: str(value) for name, value in vars(self).items()}

    def differences(self, parameters: dict[str, str]) -> list[str]:
        """How a server's parameters differ, one readable line for each that does; [] if none does.

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
