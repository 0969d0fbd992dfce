"""How a model is to be called: texts, probabilities, and what travels as JSON."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reward_contract.errors import InvalidInputError, NoFormatError
from reward_text import FORMATS, Calibration, Conversation, Format, Usage, context_of, format_named
from reward_text.usage import USAGE_NAME

SAID = [{"role": "user", "content": "secret"}]
OWN = Format("own", "<{content}>", "[{content}]", reply="->")


def test_the_probability_is_the_sigmoid_of_the_reward_unless_calibrated() -> None:
    rewards = np.array([-2.0, 0.0, 3.0], np.float32)
    found = Calibration().probabilities(rewards)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1 / (1 + math.exp(-one)) for one in (-2, 0, 3)], rtol=1e-6)
    found = Calibration(0.5, -1.0).probabilities(rewards)
    np.testing.assert_allclose(
        found, [1 / (1 + math.exp(-one)) for one in (-2, -1, 0.5)], rtol=1e-6
    )


def test_probabilities_of_extreme_rewards_are_0_and_1_and_of_nan_nan() -> None:
    found = Calibration(2.0, 1.0).probabilities([-1e30, 1e30, math.inf, -math.inf, math.nan])
    np.testing.assert_array_equal(found, [0, 1, 1, 0, math.nan])


@pytest.mark.parametrize(("scale", "bias"), [(0, 0), (-1, 0), (math.nan, 0), (1, math.inf)])
def test_a_calibration_keeps_the_order(scale: float, bias: float) -> None:
    with pytest.raises(ValueError, match="a scale above 0 and a bias, both finite"):
        Calibration(scale, bias)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(FORMATS["pygmalion"], 512),
        Usage(OWN, 64, Calibration(0.5, -1.25)),
        *(Usage(form) for form in FORMATS.values()),
    ],
)
def test_usage_travels_as_json(usage: Usage, tmp_path: Path) -> None:
    assert Usage.from_json(json.loads(json.dumps(usage.as_json()))) == usage
    usage.write(tmp_path)
    assert Usage.read(tmp_path / USAGE_NAME) == usage


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "type list"),
        ("nonsense", "Expecting value"),
        ('{"max_tokens": "256"}', "max_tokens is of type str"),
        ('{"max_tokens": true}', "max_tokens is of type bool"),
        ('{"max_tokens": 0}', "at least one token, not 0"),
        ('{"chat_format": "chai"}', "a JSON object, not str"),
        ('{"calibration": {"scale": 1}}', "has scale and bias, not scale"),
        ('{"calibration": {"scale": "1", "bias": 0}}', "scale is of type str"),
        ('{"calibration": {"scale": -1, "bias": 0}}', "a scale above 0"),
    ],
)
def test_what_is_no_usage_is_refused_with_the_file(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / USAGE_NAME).write_text(text)
    with pytest.raises(ValueError, match=f"{USAGE_NAME}: .*{reason}"):
        Usage.read(tmp_path / USAGE_NAME)


def test_conversations_are_rendered_and_texts_are_never_touched() -> None:
    usage = Usage(FORMATS["chai"])
    assert usage.texts(SAID, ["Hm. \n"]) == ("User: secret\nBot:", [" Hm."])
    assert usage.texts(Conversation(SAID, prompt="P"), []) == ("P\nUser: secret\nBot:", [])
    for text in ("User: x\nBot:", ""):
        assert usage.texts(text, [" Hm. \n", ""]) == (text, [" Hm. \n", ""])
        assert Usage().texts(text, [" \n"]) == (text, [" \n"])


def test_messages_without_a_format_are_refused_without_their_text() -> None:
    with pytest.raises(NoFormatError, match="--format") as caught:
        Usage().texts(SAID, ["secret"])
    assert "secret" not in str(caught.value)


def test_names_that_are_null_are_as_if_they_were_missing() -> None:
    fields = {"messages": SAID, "bot_name": "Ada", "user_name": None, "persona": None}
    assert context_of(fields) == Conversation(SAID, "Ada")
    with pytest.raises(InvalidInputError, match='"prompt" is int, not a string'):
        context_of({**fields, "prompt": 7})


@pytest.mark.parametrize("context", [None, b"bytes", 7, {"role": "user"}])
def test_what_is_neither_text_nor_messages_is_named(context: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{type(context).__name__}, neither text"):
        Usage(FORMATS["chai"]).texts(context, ["a"])


def test_a_reply_that_is_no_text_is_counted() -> None:
    with pytest.raises(InvalidInputError) as caught:
        Usage(FORMATS["chai"]).texts(SAID, ["a", None])
    assert caught.value.row == 1


def test_a_format_is_named_by_itself_or_by_a_file(tmp_path: Path) -> None:
    assert format_named("chai") is FORMATS["chai"]
    (tmp_path / "own.json").write_text(OWN.as_json())
    Usage(OWN).write(tmp_path)
    assert format_named(str(tmp_path / "own.json")) == OWN
    assert format_named(str(tmp_path / USAGE_NAME)) == OWN
    with pytest.raises(ValueError, match=r"neither a format \(verbatim, lines, .*nor a file"):
        format_named("chia")
