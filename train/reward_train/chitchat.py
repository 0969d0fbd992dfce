"""The dialogues of chitchat-dataset: 7,168 conversations between volunteers, MIT licence.

Source: Brigham Young University's Chit-Chat Challenge, version 0.9.0 of the package.
"""

import json
from importlib import resources

from reward_train.dialogues import Dialogue
from reward_train.errors import DataError

MIN_TURNS = 2  # a conversation without a reply teaches nothing


def dialogues() -> list[Dialogue]:
    """Conversations with a reply, in the package's order.

    Messages that one side sent in a row are one turn, joined with spaces; turns without text
    are left out.

    Raises:
        DataError: the package is not installed.
    """
    try:
        package = resources.files("chitchat_dataset")
    except ModuleNotFoundError as error:
        raise DataError(
            "the package chitchat-dataset is not installed; pip install 'gpt2-reward[chitchat]'"
        ) from error
    text = (package / "dataset.json").read_text("utf-8")
    found = [Dialogue(key, _turns(item["messages"])) for key, item in json.loads(text).items()]
    return [dialogue for dialogue in found if len(dialogue.turns) >= MIN_TURNS]


def _turns(messages: list[list[dict[str, str]]]) -> tuple[str, ...]:
    turns = (" ".join(message["text"].strip() for message in turn) for turn in messages)
    return tuple(turn.strip() for turn in turns if turn.strip())
