"""`gpt2-reward evaluate` against a server in this process, and its figures on hand-made groups."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reward_client import RewardClient, Tokenizer
from reward_client.cli import main
from reward_client.testing import FakeServer
from reward_contract import CONTRACT
from reward_export.ranks import spearman
from reward_text import FORMATS, Usage
from reward_train.evaluate.quality import Scored, agreement, quality, within


def length(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Longer texts are better, up to what the model can see."""
    found: NDArray[np.float32] = (ids != CONTRACT.pad_token_id).sum(1).astype(np.float32)
    return found


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(length, usage=Usage()) as fake:
        yield fake


def write(path: Path, groups: list[object]) -> Path:
    path.write_text("".join(json.dumps(group) + "\n" for group in groups))
    return path


GROUPS: list[object] = [
    {"context": "a\n", "candidates": ["b c d", "b c", "b", ""], "best": 0},  # beats all
    {"context": "a\n", "candidates": ["b c d", "b c", "b", ""], "best": 1},  # two of three
    {"context": "a\n", "candidates": ["b", "b b"], "best": 0},  # none
]


def test_figures_are_those_of_the_groups(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "groups.jsonl", GROUPS), tmp_path / "figures.json"
    assert main(["evaluate", str(file), f"--url={server.url}", f"--json={out}"]) == 0
    (found,) = json.loads(out.read_text())["found"]
    assert (found["model_version"], found["source"]) == (1, "fake")
    with RewardClient(server.url) as client:
        assert found["identity"] == client.server_info().models[0].identity
    assert found["first_of"]["2"]["mean"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["first_of"]["4"]["mean"] == pytest.approx((1 + 0) / 2)
    assert found["first_of"]["4"]["n_groups"] == 2, "one has two candidates"
    assert "8" not in found["first_of"]
    assert found["in_first_two"]["4"]["mean"] == 1.0
    assert found["worst_rejected"] == {}, "no group names one"
    assert found["reciprocal_rank"]["mean"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert {parameters["priority"] for parameters in server.parameters} == {2}, "bulk"
    text = capsys.readouterr().out
    assert "3 groups" in text
    assert "best is first or second" in text
    assert "worst is not first" not in text
    assert "55.6%" in text


def test_two_policies_are_compared(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the context cut alike for all, only the candidates' lengths can differ."""
    context = "word " * 300
    groups: list[object] = [{"context": context, "candidates": ["x y z", "x", "x y"], "best": 0}]
    file, out = write(tmp_path / "groups.jsonl", groups), tmp_path / "figures.json"
    plot = tmp_path / "plot.svg"
    options = [f"--url={server.url}", f"--json={out}", f"--plot={plot}"]
    assert main(["evaluate", str(file), *options, "--truncation", "left", "shared_context"]) == 0
    found = json.loads(out.read_text())
    assert [one["truncation"] for one in found["found"]] == ["left", "shared_context"]
    assert [one["first_of"]["2"]["mean"] for one in found["found"]] == [0.5, 1.0]
    (compared,) = found["agreement_with_first"].values()
    n_tokens = [len(Tokenizer().encode(f" {text}")) for text in ("x y z", "x")]
    assert compared["max_difference"] == n_tokens[0] - n_tokens[1]
    assert "version 1, shared_context" in capsys.readouterr().out
    assert plot.read_text().startswith("<?xml")


def test_two_servers_are_compared(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "groups.jsonl", GROUPS)
    with FakeServer(lambda ids: -length(ids)) as other:
        options = [f"--url={server.url}", f"--against-url={other.url}"]
        assert main(["evaluate", str(file), *options]) == 0
    text = capsys.readouterr().out
    assert f"{other.url}, version 1" in text
    assert "-1.0000" in text


def test_what_cannot_be_evaluated_is_said(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(lines: str, *options: str) -> str:
        file = tmp_path / "groups.jsonl"
        file.write_text(lines)
        assert main(["evaluate", str(file), f"--url={server.url}", *options]) == 1
        return capsys.readouterr().err

    good = json.dumps(GROUPS[0]) + "\n"
    assert "has no groups" in said("")
    assert "line 2 is not JSON" in said(good + "{")
    for fields in (
        {"best": 4},
        {"best": True},
        {"worst": 4},
        {"worst": 0},
        {"candidates": ["a"]},
        {"context": None},
    ):
        assert "line 1 is no" in said(json.dumps({**GROUPS[0], **fields}) + "\n")  # type: ignore[dict-item]
    assert "name another server" in said(good, "--against-model-version=1")
    assert "cannot draw" in said(good, f"--plot={tmp_path / 'plot.doc'}")
    assert main(["evaluate", str(tmp_path / "absent")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_a_model_that_is_exchanged_meanwhile_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rewards(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        fake.version += 1
        return length(ids)

    file = write(tmp_path / "groups.jsonl", GROUPS * 20)
    with FakeServer(rewards) as fake:
        assert main(["evaluate", str(file), f"--url={fake.url}"]) == 1
    assert "pin one" in capsys.readouterr().err


REWARDS = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=7)


@given(REWARDS, st.data(), st.sampled_from([1, 2]))
def test_within_counts_every_draw(values: list[float], data: st.DataObject, places: int) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    n = data.draw(st.integers(2, len(values)))
    own, others = values[index], values[:index] + values[index + 1 :]
    likely = []
    for drawn in itertools.combinations(others, n - 1):
        first = sum(value > own for value in drawn)
        shared = range(first, first + 1 + drawn.count(own))
        likely.append(sum(place < places for place in shared) / len(shared))
    found = within(Scored(np.array(values, np.float32), 0), index, n, places)
    assert found == pytest.approx(np.mean(likely))


def test_the_worst_is_rejected_unless_it_comes_first() -> None:
    groups = [
        Scored(np.array(rewards, np.float32), 0, worst)
        for rewards, worst in (([3, 2, 1, 0], 3), ([0, 1, 2, 3], 3), ([3, 2, 1, 0], None))
    ]
    found = quality(groups)
    assert {n: one.mean for n, one in found.worst_rejected.items()} == {2: 0.5, 4: 0.5}
    assert found.worst_rejected[4].n_groups == 2
    assert {n: one.mean for n, one in found.in_first_two.items()} == {
        2: 1.0,
        4: pytest.approx(2 / 3),
    }
    assert quality(groups[2:]).worst_rejected == {}


def test_intervals_hold_their_mean_and_shrink() -> None:
    rng = np.random.default_rng(0)
    groups = [Scored(rng.normal(size=4).astype(np.float32), 0) for _ in range(400)]
    few, many = quality(groups[:25]).pairwise, quality(groups).pairwise
    assert few.low < few.mean < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.5 < many.high, "by chance"


def test_agreement_of_equal_and_opposite_rewards() -> None:
    rng = np.random.default_rng(0)
    groups = [Scored(rng.normal(size=4).astype(np.float32), 0) for _ in range(50)]
    alike = agreement(groups, groups)
    assert (alike.same_first, alike.max_difference) == ({2: 1.0, 4: 1.0}, 0.0)
    assert alike.spearman == pytest.approx(1)
    opposite = agreement(groups, [Scored(-one.rewards, 0) for one in groups])
    assert opposite.same_first == {2: 0.0, 4: 0.0}
    assert opposite.spearman == pytest.approx(-1)
    assert np.isnan(spearman(np.ones(3), np.arange(3)))


def test_groups_of_messages_are_judged_in_the_models_format_or_another(
    server: FakeServer, tmp_path: Path
) -> None:
    server.show(Usage(FORMATS["chai"]))
    said = [{"role": "user", "content": "a"}]
    groups: list[object] = [{"messages": said, "candidates": ["b c", "b"], "best": 0}]
    file = write(tmp_path / "groups.jsonl", groups)
    assert main(["evaluate", str(file), f"--url={server.url}"]) == 0
    wanted = Tokenizer().encode_rows(["User: a\nBot: b c", "User: a\nBot: b"])
    np.testing.assert_array_equal(server.requests[-1], wanted)
    words = [f"--url={server.url}", "--chat-format=lines"]
    assert main(["evaluate", str(file), *words]) == 0
    np.testing.assert_array_equal(server.requests[-1], Tokenizer().encode_rows(["a\nb c", "a\nb"]))
