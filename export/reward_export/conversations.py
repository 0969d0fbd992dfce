"""Real conversations, shipped with the exporter, on which it checks its graphs."""

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue of two people.

    Attributes:
        id: the dialogue's id in chitchat-dataset.
        turns: what was said, in turn, at least eight of them.
    """

    id: str
    turns: tuple[str, ...]


def conversations() -> list[Conversation]:
    """48 dialogues of chitchat-dataset 0.9.0 (MIT), chosen by `tools/sample_conversations.py`."""
    text = resources.files("reward_export").joinpath("data/conversations.json").read_text("utf-8")
    return [Conversation(item["id"], tuple(item["turns"])) for item in json.loads(text)]
