"""Conversations in the rows of files: named columns, CSV, Parquet, and lines scored again."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bulk_files import read, score, write

from reward_client import Tokenizer, Usage
from reward_client.testing import FakeServer
from reward_text import FORMATS

SAID: list[dict[str, str]] = [
    {"role": "assistant", "content": "Hi, how are you?"},
    {"role": "user", "content": 'What\n"is" 2+2?'},
]
TALK = '{0}: Hi, how are you?\nUser: What\n"is" 2+2?\n{0}: '
REPLIES = ["4!\n", "Five, I suppose."]


@pytest.fixture
def chats() -> Iterator[FakeServer]:
    """A server whose model reads conversations with names; a reward is the number of tokens."""
    with FakeServer(lambda ids: (ids != 50256).sum(1), max_batch_rows=4) as server:
        server.show(Usage(FORMATS["pygmalion"]))
        yield server


def text(reply: str, bot: str = "Bot", prompt: str = "") -> str:
    scene = f"{prompt}\n<START>\n" if prompt else ""
    return scene + TALK.format(bot) + reply


def ids(texts: list[str]) -> list[list[int]]:
    return sorted(Tokenizer().encode_rows(texts).tolist())


def sent(server: FakeServer) -> list[list[int]]:
    """Rows that the server received, in an order that does not depend on their arrival."""
    return sorted(np.concatenate(server.requests).tolist())


def test_a_messages_column_is_named_and_what_is_beside_it_is_read(
    chats: FakeServer, tmp_path: Path
) -> None:
    lines: list[dict[str, object]] = [
        {"prompt": SAID, "reply": REPLIES, "bot_name": "Ada", "persona": None},
        {"prompt": json.dumps(SAID), "reply": "x", "user_name": None},
        {"prompt": None, "reply": "x"},
        {"prompt": "secret", "reply": "x"},
        {"prompt": '{"role": "user"}', "reply": "x"},
        {"prompt": SAID},
    ]
    data, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    names = ("--messages-column=prompt", "--candidate-column=reply", "--max-rejected=0.7")
    assert score(chats, data, output, *names) == 0
    assert sent(chats) == ids([text("4!", "Ada"), text(REPLIES[1], "Ada"), text("x")])
    assert ["rewards" in item for item in read(output)] == [True, False]
    assert [item["reason"] for item in read(tmp_path / "out.jsonl.rejected.jsonl")] == [
        '"prompt" is NoneType, not a list',
        '"prompt" is neither a list nor a list in JSON',
        '"prompt" is dict, not a list',
        'has no "reply"',
    ]


def test_rows_of_csv_have_messages_as_json(chats: FakeServer, tmp_path: Path) -> None:
    data, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("messages", "candidate", "bot_name", "prompt", "id"),
                (json.dumps(SAID), "a", "Ada", "A café.", 1),
                (json.dumps(SAID), "b", "", "", 2),
                ("", "c", "", "", 3),
            ]
        )
    assert score(chats, data, output, "--max-rejected=0.5") == 0
    assert sent(chats) == ids([text("a", "Ada", "A café."), text("b")])
    assert [item["id"] for item in read(output)] == ["1", "2"]


def test_columns_of_messages_are_kept_and_may_be_null(chats: FakeServer, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    from pyarrow import parquet as pq  # noqa: PLC0415  # an extra

    table = pa.table(
        {
            "messages": [SAID, None, SAID],
            "context": [None, "Hi\n", None],
            "candidates": [REPLIES, ["a", "b"], ["c"]],
            "bot_name": ["Ada", None, None],
        }
    )
    data = tmp_path / "in.parquet"
    pq.write_table(table, data)
    kept = ("--keep", "messages", "bot_name")
    assert score(chats, data, tmp_path / "out.parquet", *kept) == 0
    wanted = [text("4!", "Ada"), text(REPLIES[1], "Ada"), "Hi\na", "Hi\nb", text("c")]
    assert sent(chats) == ids(wanted)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(kept[1:]).equals(table.select(kept[1:]))
    rewards = found["rewards"].to_pylist()
    assert score(chats, data, tmp_path / "out.jsonl", *kept) == 0
    items = read(tmp_path / "out.jsonl")
    assert [item["rewards"] for item in items] == rewards
    assert [item.get("messages") for item in items] == [SAID, None, SAID]


@pytest.mark.parametrize("name", ["messages", "prompt"])
@pytest.mark.parametrize("column", [[b"secret"], [["secret"]], [[{"role": "user"}]]])
def test_a_column_that_cannot_be_messages_is_told_at_once(
    chats: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    column: list[object],
) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    from pyarrow import parquet as pq  # noqa: PLC0415  # an extra

    data = tmp_path / "in.parquet"
    pq.write_table(pa.table({name: column, "candidate": ["a"]}), data)
    output = tmp_path / "out.jsonl"
    assert score(chats, data, output, f"--messages-column={name}") == 1
    errors = capsys.readouterr().err
    assert f'column "{name}" of {data} is ' in errors
    assert 'not a list of messages with "role" and "content"' in errors
    assert not chats.requests
    assert not output.exists()


def test_a_prompt_that_is_no_scene_may_be_beside_texts(chats: FakeServer, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    from pyarrow import parquet as pq  # noqa: PLC0415  # an extra

    data = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": [[1]], "text": ["Hi"]}), data)
    assert score(chats, data, tmp_path / "out.jsonl") == 0
    assert sent(chats) == ids(["Hi"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--messages-column=a", "--context-column=b"], "messages take the place of a context"),
        (["--messages-column=a", "--text-column=b"], "scored by itself"),
        (["--messages-column=a"], 'has no column "a"; it has "messages", "candidate"'),
        (["--candidate-column=a"], 'has no column "a"'),
    ],
)
def test_names_that_do_not_go_together_are_told_at_once(
    chats: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    data = write(tmp_path / "in.jsonl", [{"messages": SAID, "candidate": "a"}])
    assert score(chats, data, tmp_path / "out.jsonl", *options) == 1
    assert message in capsys.readouterr().err
    assert not chats.requests


def test_a_context_column_may_be_called_messages(chats: FakeServer, tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", [{"messages": "Hi\n", "candidate": "a"}])
    assert score(chats, data, tmp_path / "out.jsonl", "--context-column=messages") == 0
    assert sent(chats) == ids(["Hi\na"])


def test_conversations_that_are_fixed_are_scored_in_the_same_format(
    chats: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, object]] = [
        {"messages": SAID, "candidate": f"{number}"} for number in range(9)
    ]
    broken = [{**line, "messages": 7} if n in {0, 5} else line for n, line in enumerate(lines)]
    whole = tmp_path / "whole.jsonl"
    options = ("--chat-format=chai", "--max-rejected=0.5")
    assert score(chats, write(tmp_path / "good.jsonl", lines), whole, *options) == 0
    data, output = write(tmp_path / "in.jsonl", broken), tmp_path / "out.jsonl"
    assert score(chats, data, output, *options) == 0
    write(data, lines)
    assert score(chats, data, output, "--rescore-rejected") == 1
    assert "was made with other settings: chat_format was" in capsys.readouterr().err
    chats.requests.clear()
    assert score(chats, data, output, *options, "--rescore-rejected") == 0
    chai = FORMATS["chai"].context(SAID)
    assert sent(chats) == ids([f"{chai} 0", f"{chai} 5"])
    assert output.read_bytes() == whole.read_bytes()


def test_a_name_that_is_no_unicode_is_set_aside(chats: FakeServer, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"messages": [{**SAID[0], "name": "\ud800"}], "candidate": "a"},
        {"messages": SAID, "candidate": "b"},
    ]
    data, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    assert score(chats, data, output, "--max-rejected=0.5") == 0
    assert sent(chats) == ids([text("b")])


def test_replies_to_one_conversation_that_are_neighbours_go_together(
    chats: FakeServer, tmp_path: Path
) -> None:
    lines: list[dict[str, object]] = [
        {"messages": SAID[:n_messages], "candidate": reply, "bot_name": name}
        for n_messages, name in ((1, "Ada"), (2, "Ada"), (2, "Bob"))
        for reply in "abc"
    ]
    data = write(tmp_path / "in.jsonl", lines)
    assert score(chats, data, tmp_path / "out.jsonl") == 0
    assert [len(request) for request in chats.requests] == [3, 3, 3]
