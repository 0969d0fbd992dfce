"""A process that tokenises for another one, which starts it: `reward_client.bulk.workers`.

It reads orders from standard input and writes their rows to standard output, one for each, in the
same order, until its input ends. What both send is a pickle with its length in front.
"""

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from reward_contract.errors import InvalidInputError
from reward_text.tokens import Encoded, Tokenizer, Truncation
from reward_text.usage import Context, Usage

LENGTH_BYTES = 8


class Order(NamedTuple):  # pickled faster than a dataclass
    """What to tokenise, and how.

    Attributes:
        texts: whole texts.
        groups: contexts with their candidates.
        truncation: what groups lose if they are too long.
        usage: the model's.
    """

    texts: Sequence[str]
    groups: Sequence[tuple[Context, Sequence[str]]]
    truncation: Truncation
    usage: Usage

    def rows(self) -> Encoded | None:
        """The rows of the texts, then those of the groups; None if something is not valid."""
        tokenizer = Tokenizer(self.usage.max_tokens)
        try:
            groups = [self.usage.texts(context, answers) for context, answers in self.groups]
            encoded = [tokenizer.encode_group(*group, self.truncation) for group in groups]
            return Encoded.concatenated([tokenizer.encode_texts(self.texts), *encoded])
        except InvalidInputError:
            return None  # the caller finds the same error, and says where


def packed(value: object) -> bytes:
    """A message of either side."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that ordered
    Tokenizer()  # reads the vocabulary
    try:
        _write(b"ready")
        while length := sys.stdin.buffer.read(LENGTH_BYTES):
            data = sys.stdin.buffer.read(int.from_bytes(length, "little"))
            order: Order = pickle.loads(data)  # noqa: S301  # from the process that started this one
            _write(order.rows())
    except (BrokenPipeError, EOFError, pickle.UnpicklingError):
        os._exit(0)  # the other process has ended; nothing can be flushed


def _write(value: object) -> None:
    sys.stdout.buffer.write(packed(value))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
