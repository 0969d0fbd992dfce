"""The demo, as `make demo` runs it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from transformers import GPT2Config

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "demo" / "demo.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_ranks_real_conversations(
    checkpoint_folder: Path, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "gpt2_reward").mkdir()
    shutil.copy2(repository / "gpt2_reward" / "config.pbtxt", tmp_path / "gpt2_reward")
    arguments = (f"--checkpoint={checkpoint_folder}", f"--repository={tmp_path}")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    before, _, after = first.stderr.partition("loading ")
    assert re.search(
        r"^3,3\d\d,\d{3} weights: this takes about 20 seconds on two idle cores, 0\.7 GB of memory "
        r"\(\d+\.\d GB are available here\) and 0\.01 GB of disk$",
        before,
        re.MULTILINE,
    )
    assert "published" in after
    assert len(re.findall(r"^ {2}\*  1 +[+-]\d\.\d{4}  \w", first.stdout, re.MULTILINE)) == 4
    assert first.stdout.count("(what was really said)") == 4
    assert first.stdout.count("gpt2_reward version 1 on triton 2.51.0 at 127.0.0.1:") == 4
    assert "what was really said comes first of 4; by chance it would in 12" in first.stdout
    again = run(*arguments)
    assert "already" in again.stderr
    assert sorted(path.name for path in (tmp_path / "gpt2_reward").iterdir()) == [
        "1",
        "config.pbtxt",
    ]


def test_by_default_it_ranks_with_the_trained_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "gpt2_reward").mkdir()
    config = ROOT / "model_repository" / "gpt2_reward" / "config.pbtxt"
    shutil.copy2(config, tmp_path / "gpt2_reward")
    done = run(f"--repository={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = re.search(r"In (\d+) of the 48,", done.stdout)
    assert found is not None
    assert int(found[1]) >= 24, "twice what chance gives"


def test_what_the_cards_model_takes_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=24, n_head=16, n_embd=1024, num_labels=1, pad_token_id=50256)
    config.save_pretrained(tmp_path / "medium")
    done = run(f"--checkpoint={tmp_path / 'medium'}", f"--repository={tmp_path / 'repository'}")
    assert done.returncode == 1, "it has no weights"
    told, *_, failed = done.stderr.splitlines()
    assert told.startswith(
        "354,824,192 weights: this takes about 6 minutes on two idle cores, 4.3 GB"
    )
    assert " and 1.42 GB of disk" in told
    assert failed.startswith(f"demo: cannot load the weights of {tmp_path / 'medium'}")


def test_a_checkpoint_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(f"--checkpoint={tmp_path}/nowhere")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"demo: there is no folder {tmp_path}/nowhere"
