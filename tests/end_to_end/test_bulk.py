"""A file of real conversations, scored on the real tritonserver by a run that is killed midway."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from reward_client import Tokenizer
from reward_export.checkpoint import load
from reward_export.conversations import conversations
from reward_serve.server import TritonServer

COMMAND = Path(sys.executable).with_name("gpt2-reward")


def lines() -> list[dict[str, object]]:
    """Groups, pairs and texts, short and beyond 256 tokens."""
    dialogues = conversations()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns]
    found: list[dict[str, object]] = []
    for number, reply in enumerate(replies[:300]):
        context = "\n".join(dialogues[number % 48].turns[: 1 + number % 8]) + "\n"
        forms: list[dict[str, object]] = [
            {"text": context + reply},
            {"context": context, "candidate": reply},
            {"context": context, "candidates": replies[number : number + 1 + number % 4]},
        ]
        found.append({"id": number, **forms[number % 3]})
    return found


def test_a_file_is_scored_as_pytorch_does_though_the_run_is_killed(
    server: TritonServer, checkpoint_folder: Path, tmp_path: Path
) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    options = [f"--url={server.grpc_url}", f"--input={data}", f"--output={output}", "--in-flight=2"]
    command = [str(COMMAND), "score", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        while not (output.exists() and output.stat().st_size) and killed.poll() is None:
            time.sleep(0.005)
        killed.kill()
    assert 0 < output.read_bytes().count(b"\n") < 300
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert " lines after the first " in done.stderr
    items = [json.loads(line) for line in output.read_text().splitlines()]
    assert [item["id"] for item in items] == list(range(300))
    found = [reward for item in items for reward in item.get("rewards", [item.get("reward")])]
    texts = [
        str(line.get("context", "")) + text
        for line in lines()
        for text in line.get("candidates") or [line.get("candidate") or line["text"]]
    ]
    wanted = load(str(checkpoint_folder)).rewards(Tokenizer().encode_rows(texts))[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
