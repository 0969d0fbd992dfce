"""Writes ten texts of real conversations and PyTorch's rewards for them by `checkpoints/chitchat`.

    python tools/golden_rewards.py > tests/export/golden_rewards.json

Run it again only if that checkpoint is trained again: the test that reads the file is there to
notice if the same weights give other rewards.
"""

import json
from pathlib import Path

from reward_export.checkpoint import load
from reward_export.conversations import conversations
from reward_text import Tokenizer

CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "chitchat"
END = "<|endoftext|>"


def texts() -> list[str]:
    """Plain texts, and texts whose reward depends on the position that is scored."""
    dialogues = [one.turns for one in conversations()[:6]]
    first, second, third, fourth, fifth, sixth = ("\n".join(it[:6]) for it in dialogues)
    return [
        first,
        second,
        third,
        "\n".join(dialogues[3]),  # far more than 256 tokens: the last ones are scored
        fourth + END + fifth,
        fifth + END,
        fifth + END + END,
        END + sixth,
        END,
        "",
    ]


def main() -> None:
    """Print the file."""
    rewards = load(str(CHECKPOINT)).rewards(Tokenizer().encode_rows(texts()))[:, 0]
    items = [
        {"text": text, "reward": round(float(reward), 6)}
        for text, reward in zip(texts(), rewards, strict=True)
    ]
    print(json.dumps(items, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
