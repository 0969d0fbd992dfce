"""Input files for `gpt2-reward score`, and the expected output with `first_token`'s rewards."""

import json
from pathlib import Path

import numpy as np

from reward_client import Tokenizer
from reward_client.cli import main
from reward_client.testing import FakeServer

LINES: list[dict[str, object]] = [
    {"text": "Hi", "id": "a"},
    {"context": "How are you?\n", "candidate": "Fine.", "id": "b"},
    {"context": "", "candidates": ["Hello", "Hi", ""], "id": "c"},
    {"text": ""},
]


def texts_of(line: dict[str, object]) -> list[str]:
    candidates = line.get("candidates") or [line.get("candidate", line.get("text"))]
    return [str(line.get("context", "")) + str(text) for text in candidates]


def wanted(line: dict[str, object]) -> list[float]:
    return [float(x) for x in Tokenizer().encode_rows(texts_of(line))[:, 0] / np.float32(100)]


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewards(items: list[dict[str, object]]) -> list[list[float]]:
    return [item["rewards"] if "rewards" in item else [item["reward"]] for item in items]


def score(server: FakeServer, data: Path, output: Path, *options: str) -> int:
    return main(["score", f"--url={server.url}", f"--input={data}", f"--output={output}", *options])
