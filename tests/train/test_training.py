"""`gpt2-reward train` from rows to a folder that the exporter takes."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_export.checkpoint import load
from reward_export.export import ExportOptions, export
from reward_export.usage import usage_of
from reward_text import FORMATS, Tokenizer, Usage
from reward_train import chitchat
from reward_train.errors import StartError, TrainError
from reward_train.retrieval import retrieval_embeddings
from reward_train.scratch import Scratch, Shape, classifier_from_scratch

CONFIG = Path(__file__).parents[2] / "model_repository" / MODEL_NAME / "config.pbtxt"
SMALL = ["--from-scratch=2,2,32", "--embedding-epochs=1", "--batch-size=4", "--learning-rate=1e-3"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real dialogues as rows."""
    folder = tmp_path_factory.mktemp("rows")
    dialogues = folder / "dialogues.jsonl"
    chosen = chitchat.dialogues()[:60]
    dialogues.write_text(
        "".join(json.dumps({"id": one.id, "turns": one.turns[:12]}) + "\n" for one in chosen)
    )
    assert main(["rows", str(folder), f"--dialogues={dialogues}", "--negatives=1"]) == 0
    return folder


def test_dialogues_become_rows_of_three_splits(rows: Path) -> None:
    for split in ("train", "validation", "test"):
        found = [json.loads(line) for line in (rows / f"{split}.jsonl").read_text().splitlines()]
        assert {row["label"] for row in found} <= {0, 1}
    assert len((rows / "train.jsonl").read_text().splitlines()) > 500


def test_a_small_model_is_trained_evaluated_and_exported(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "trained"
    options = [f"--output={output}", f"--validation={rows / 'test.jsonl'}", "--pack=256"]
    kind = ["--epochs=1", "--token-loss=0.5", "--save-dtype=float16", "--eval-steps=20"]
    assert main(["train", str(rows / "train.jsonl"), *options, *kind, *SMALL]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(output)
    assert "eval_roc_auc" in said.err
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == ["GPT2ForSequenceClassification"]
    assert load(str(output)).architecture.n_layer == 2
    repository = tmp_path / "repository"
    (repository / MODEL_NAME).mkdir(parents=True)
    shutil.copy2(CONFIG, repository / MODEL_NAME)
    published = export(ExportOptions(str(output), repository), say=print)
    assert published.parity.max_difference < 1e-4


def test_a_checkpoint_says_the_format_and_the_window_that_it_was_trained_in(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some.jsonl"
    lines = (rows / "train.jsonl").read_text().splitlines(keepends=True)
    some.write_text("".join(lines[:40]))
    words = ["train", str(some), "--epochs=1", *SMALL]
    assert main([*words, f"--output={tmp_path / 'a'}", "--format=lines", "--max-tokens=512"]) == 0
    found = usage_of(load(str(tmp_path / "a")))
    assert (found.chat_format, found.max_tokens) == (FORMATS["lines"], 512)
    assert main([*words, f"--output={tmp_path / 'b'}"]) == 0
    assert usage_of(load(str(tmp_path / "b"))) == Usage(), "no format or window was given"
    assert main([*words, f"--output={tmp_path / 'c'}", "--max-tokens=1025"]) == 1
    assert "cannot read windows of 1025 tokens" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on(rows: Path, tmp_path: Path) -> None:
    """Killed while its second intermediate checkpoint was written, then resumed to the end."""
    output = tmp_path / "trained"
    arguments = ["train", str(rows / "train.jsonl"), f"--output={output}", *SMALL]
    arguments += ["--pack=256", "--epochs=2", "--eval-steps=5"]
    code = f"import sys; from reward_client.cli import main; sys.exit(main({arguments!r}))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        while not list(output.glob("steps/checkpoint-10/trainer_state.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    (output / "steps" / "checkpoint-10" / "trainer_state.json").write_text('{"epoch": 0.')
    assert not (output / "config.json").exists()
    assert main(arguments) == 1  # it does not start over without being asked
    assert main([*arguments, "--resume"]) == 0
    assert load(str(output)).architecture.n_embd == 32


def test_several_processes_train_one_model(rows: Path, tmp_path: Path) -> None:
    """As on several GPUs: each process has its share of the items, and the first one writes."""
    few, output = tmp_path / "few.jsonl", tmp_path / "trained"
    few.write_text("\n".join((rows / "train.jsonl").read_text().splitlines()[:200]) + "\n")
    launcher = [f"{Path(sys.executable).parent}/torchrun", "--nproc_per_node=2", "--no-python"]
    code = "import sys; from reward_client.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", str(few), f"--output={output}", *SMALL]
    done = subprocess.run(
        [*launcher, *command, "--pack=256", "--epochs=1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == str(output)
    assert done.stdout.count(str(output)) == 1
    assert done.stderr.count("items of") == 1
    assert load(str(output)).architecture.n_embd == 32


def test_it_learns_from_a_base_and_gives_the_same_weights_again(
    rows: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join((rows / "train.jsonl").read_text().splitlines()[:24]) + "\n")
    weights = []
    for name in ("one", "two"):
        output = tmp_path / name
        options = [f"--base={checkpoint_folder}", f"--output={output}", "--batch-size=8"]
        assert main(["train", str(few), *options, "--learning-rate=1e-3", "--epochs=3"]) == 0
        weights.append(load(str(output)).weights())
    before = load(str(checkpoint_folder)).weights()
    for key, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][key])
    assert np.abs(weights[0]["score.weight"] - before["score.weight"]).max() > 1e-4
    assert bce(tmp_path / "one", few) < bce(checkpoint_folder, few)


def bce(folder: Path, rows: Path) -> float:
    """The loss of unpacked rows through `transformers`."""
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    ids = Tokenizer().encode_rows([row["context"] + row["candidate"] for row in found])
    rewards = torch.from_numpy(load(str(folder)).rewards(ids))[:, 0]
    labels = torch.tensor([float(row["label"]) for row in found])
    return torch.nn.functional.binary_cross_entropy_with_logits(rewards, labels).item()


def test_what_cannot_begin_is_said(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"--output={tmp_path / 'out'}"
    train = ["train", str(rows / "test.jsonl"), output]
    assert main([*train, f"--base={tmp_path / 'nowhere'}"]) == 1
    assert "cannot start from" in capsys.readouterr().err
    assert main([*train, "--from-scratch=2,3"]) == 1
    assert "LAYERS,HEADS,HIDDEN" in capsys.readouterr().err
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "config.json").write_text("{}")
    assert main([*train, "--from-scratch=2,2,32"]) == 1
    assert issubclass(TrainError, Exception)
    assert "holds a checkpoint already" in capsys.readouterr().err


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(StartError, match="even number of heads"):
        classifier_from_scratch(Scratch(Shape(2, 3, 48)), torch.randn(50257, 24))


def test_retrieval_finds_the_replies_that_go_with_contexts() -> None:
    """Token n is answered by n + 10."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 10, (4000, 3))
    pairs = [(kind.tolist(), (kind + 10).tolist()) for kind in kinds]
    table = retrieval_embeddings(pairs, (20, 8), epochs=3, seed=0, say=lambda _: None)
    alike = table[:10] @ table[10:].T
    assert (alike.argmax(1) == torch.arange(10)).float().mean() >= 0.9


def test_a_model_from_scratch_compares_in_its_first_block() -> None:
    """What the block adds along `score` is the product of the two halves of its input."""
    embeddings = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))
    model = classifier_from_scratch(Scratch(Shape(2, 2, 32)), embeddings).eval()
    halves = torch.randn(500, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        added = model.transformer.h[0].mlp(halves) @ model.score.weight[0]
    product = (halves[:, :16] * halves[:, 16:]).sum(1)
    assert np.corrcoef(added, product)[0, 1] > 0.9


def test_a_first_block_takes_the_mean_of_the_tokens_before() -> None:
    embeddings = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))
    model = classifier_from_scratch(Scratch(Shape(2, 2, 32)), embeddings).eval()
    tokens = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        added, _ = model.transformer.h[0].attn(tokens)
    means = tokens[0, :, :16].cumsum(0) / torch.arange(1, 10)[:, None]
    assert np.corrcoef(added[0, :, 16:].flatten(), means.flatten())[0, 1] > 0.9
