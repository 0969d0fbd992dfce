"""The scripts of examples/, run as their first lines say, on real dialogues and a real server."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from reward_client import RewardClient
from reward_client.cli import main
from reward_export.conversations import conversations

Run = Callable[..., str]


def test_grpo_trains_on_the_servers_rewards(trained: str, run: Run, tmp_path: Path) -> None:
    said = run("train_policy.py", "--url", trained, "--steps", "2", "--output", tmp_path)
    steps = re.findall(
        r"^step (\d): mean reward ([+-]\d+\.\d+), .* (\d+\.\d+)$", said, re.MULTILINE
    )
    assert [int(step) for step, _, _ in steps] == [1, 2]
    assert all(float(spread) > 0 for _, _, spread in steps), "rewards of replies that differ"
    assert (tmp_path / "model.safetensors").is_file()


def test_ray_scores_rows_of_real_dialogues(trained: str, run: Run, tmp_path: Path) -> None:
    dialogues = tmp_path / "dialogues.jsonl"
    lines = [json.dumps({"id": one.id, "turns": one.turns}) for one in conversations()[:6]]
    dialogues.write_text("\n".join(lines))
    assert main(["rows", str(tmp_path / "rows"), f"--dialogues={dialogues}"]) == 0
    rows = [*map(json.loads, (tmp_path / "rows" / "test.jsonl").read_text().splitlines())]
    said = run("score_with_ray.py", "rows/test.jsonl", "rewards", "--url", trained)
    assert f"{len(rows):,} rows scored, 0 of them without a reward" in said
    found = re.findall(r"label (\d): mean reward ([+-]\d+\.\d+)", said)
    rejected, accepted = (float(mean) for _, mean in found)
    assert accepted > rejected, "it was trained to tell them apart"
    scored = pq.read_table(tmp_path / "rewards").to_pylist()
    by_text = {row["context"] + row["candidate"]: row["reward"] for row in scored}
    texts = [row["context"] + row["candidate"] for row in rows]
    assert set(by_text) == set(texts)
    with RewardClient(trained) as client:
        wanted = client.score(texts[:64]).rewards
    np.testing.assert_allclose([by_text[text] for text in texts[:64]], wanted, atol=1e-4)


def test_the_plot_shows_what_the_reward_model_adds(trained: str, run: Run, tmp_path: Path) -> None:
    said = run("plot_best_of_n.py", "plot.svg", "--limit", "48", "--url", trained)
    shares = {
        name: [float(share) for share in re.findall(r"(\d+\.\d)% of", line)]
        for name, _, line in (line.partition(":") for line in said.splitlines())
    }
    assert len(shares["reward model"]) == 4
    assert all(model > other for model, other in zip(*shares.values(), strict=True)), (
        "better than the rule it is compared with"
    )
    chance = [100 / n for n in (2, 4, 8, 16)]
    assert all(m > 1.3 * c for m, c in zip(shares["reward model"], chance, strict=True))
    texts = set(re.findall(r">([^<>]+)</text>", (tmp_path / "plot.svg").read_text()))
    assert {"N candidates", "reward model", "longest reply", "chance"} <= texts
