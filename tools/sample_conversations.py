"""Writes the sample of real conversations that the exporter checks itself on and the demo ranks.

    python tools/sample_conversations.py export/reward_export/data/conversations.json

Source: chitchat-dataset 0.9.0 (MIT; Brigham Young University's Chit-Chat Challenge). Its
7,168 dialogues are taken in the order of their ids' SHA-256, so that the choice is neither
random nor ours; those of a useful length are kept, unless they contain a crude or intimate word:
the demo shows them to whoever runs it.
"""

import hashlib
import json
import re
import sys
from importlib import resources
from pathlib import Path

N_CONVERSATIONS = 48
MIN_TURNS, MAX_TURNS = 8, 40
NOT_FOR_SHOW = re.compile(
    r"fuck|shit|damn|bitch|\bass\b|crap|sex|porn|naked|drug|weed|suicid|kill|rape|circum|racis|dingus",
    re.IGNORECASE,
)


def main() -> None:
    """Write the sample to the path given."""
    text = (resources.files("chitchat_dataset") / "dataset.json").read_text("utf-8")
    dialogues = json.loads(text)
    sample = []
    for key in sorted(dialogues, key=lambda key: hashlib.sha256(key.encode()).hexdigest()):
        turns = [
            " ".join(message["text"].strip() for message in turn)
            for turn in dialogues[key]["messages"]
        ]
        useful = MIN_TURNS <= len(turns) <= MAX_TURNS and all(turns)
        if useful and not NOT_FOR_SHOW.search(" ".join(turns)):
            sample.append({"id": key, "turns": turns})
        if len(sample) == N_CONVERSATIONS:
            break
    Path(sys.argv[1]).write_text(
        json.dumps(sample, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
