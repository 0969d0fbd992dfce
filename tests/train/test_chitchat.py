"""The trained checkpoint of this repository: its card, its rankings, and every precision of it."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from reward_contract import MODEL_NAME
from reward_export.checkpoint import load
from reward_export.conversations import conversations
from reward_export.export import GRAPH_NAME, ExportOptions, export
from reward_export.precision import PRECISIONS
from reward_text import Tokenizer
from reward_train.dialogues import Dialogue, LabelledGroup, groups
from reward_train.evaluate.quality import Scored, agreement, quality

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "chitchat"
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"


@pytest.fixture(scope="module")
def judging() -> ModuleType:
    """The tool that wrote the card's figures."""
    spec = importlib.util.spec_from_file_location("judge", ROOT / "tools" / "judge_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def held_out() -> list[LabelledGroup]:
    """Groups of the exporter's conversations, none of which was trained on."""
    dialogues = [Dialogue(one.id, one.turns) for one in conversations()]
    return list(groups(dialogues, n_candidates=8, a_dialogue=6))


@pytest.fixture(scope="module")
def scored(
    judging: ModuleType, held_out: list[LabelledGroup], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Scored]]:
    """The groups in each precision, scored by the graph that the exporter published."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / MODEL_NAME).mkdir()
    shutil.copy2(CONFIG, repository / MODEL_NAME)
    found = {}
    for precision in PRECISIONS:
        published = export(ExportOptions(str(CHECKPOINT), repository, precision=precision), print)
        score = judging.model_score(published.path / GRAPH_NAME)
        found[precision] = [
            Scored(score([one.context + text for text in one.candidates]), one.best)
            for one in held_out
        ]
    return found


def test_the_card_says_what_was_measured(judging: ModuleType) -> None:
    metrics = json.loads((CHECKPOINT / "metrics.json").read_text())
    assert judging.tables(metrics) in (CHECKPOINT / "README.md").read_text("utf-8")


def test_it_is_small_and_half_precision() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 16e6
    assert json.loads((CHECKPOINT / "config.json").read_text())["dtype"] == "float16"


def test_rewards_are_those_of_transformers(
    held_out: list[LabelledGroup], scored: dict[str, list[Scored]]
) -> None:
    reference = load(str(CHECKPOINT))
    for group, found in list(zip(held_out, scored["fp32"], strict=True))[:20]:
        ids = Tokenizer().encode_rows([group.context + text for text in group.candidates])
        np.testing.assert_allclose(found.rewards, reference.rewards(ids)[:, 0], rtol=0, atol=1e-4)


def test_the_real_reply_is_found_more_often_than_by_its_words(
    judging: ModuleType, held_out: list[LabelledGroup], scored: dict[str, list[Scored]]
) -> None:
    words = [Scored(judging.word_overlap(g.context, g.candidates), g.best) for g in held_out]
    ours, theirs = quality(scored["fp32"]), quality(words)
    assert ours.pairwise.low > theirs.pairwise.mean
    assert ours.first_of[8].low > 0.25, "twice as often as by chance"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_choose_the_same(
    precision: str, scored: dict[str, list[Scored]]
) -> None:
    found = agreement(scored["fp32"], scored[precision])
    assert found.spearman > 0.99
    assert found.same_first[8] > (0.97 if precision == "fp16" else 0.9)
    loss = quality(scored["fp32"]).pairwise.mean - quality(scored[precision]).pairwise.mean
    assert abs(loss) < 0.01
