"""Lines of every kind: what is scored, and why the rest is not."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_client.bulk import Job
from reward_client.bulk.chunks import chunks
from reward_client.bulk.lines import Line, Rejection, from_json, from_text
from reward_client.bulk.source import MAX_LINE_BYTES, open_source

MALFORMED = [
    (b"\n", "blank"),
    (b"  \t\r\n", "blank"),
    (b"not json\n", "not JSON: Expecting value at column 1"),
    (b'{"text": "a"} {"text": "b"}\n', "not JSON: Extra data at column 15"),
    (b'{"text": "a', "not JSON: Unterminated string starting at column 10"),
    (b'{"text": "a\n', "not JSON: Invalid control character at column 12"),
    (b'{"text": "\xff"}\n', "not UTF-8 at byte 11"),
    (b'["a"]\n', "a JSON list, not an object"),
    (b"7\n", "a JSON int, not an object"),
    (b"{}\n", 'expected "text", or "context" or "messages" with either "candidate" or'),
    (b'{"txt": "a"}\n', 'expected "text"'),
    (b'{"context": "a"}\n', 'found "context"'),
    (b'{"candidate": "a"}\n', 'found "candidate"'),
    (b'{"text": "a", "context": "b", "candidate": "c"}\n', 'found "text" and "context" and "cand'),
    (b'{"context": "a", "candidate": "b", "candidates": []}\n', '"candidate" and "candidates"'),
    (b'{"text": null}\n', '"text" is NoneType, not a string'),
    (b'{"text": 7}\n', '"text" is int, not a string'),
    (b'{"context": [], "candidate": "a"}\n', '"context" is list, not a string'),
    (b'{"context": "a", "candidate": 1}\n', '"candidate" is int, not a string'),
    (b'{"context": "a", "candidates": "bc"}\n', '"candidates" is str, not a list'),
    (b'{"context": "a", "candidates": []}\n', '"candidates" is empty'),
    (b'{"context": "a", "candidates": ["b", 2]}\n', "candidate 1 is int, not a string"),
    (b'{"text": "\\ud800"}\n', '"text" holds a lone surrogate'),
    (b'{"text": "a", "id": "\\ud800"}\n', '"id" holds a lone surrogate'),
    (b'{"text": "a", "id": {}}\n', '"id" is neither a string nor a finite number'),
    (b'{"text": "a", "id": 1e999}\n', '"id" is neither a string nor a finite number'),
    (b'{"text": "a", "id": true}\n', '"id" is neither a string nor a finite number'),
    (b'{"text": "a", "id": NaN}\n', "NaN is not a JSON number"),
    (b'{"text": ' + b"9" * 5000 + b"}\n", "unreadable JSON: Exceeds the limit"),
    (b"[" * 100_000 + b"\n", "unreadable JSON"),
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_line_is_told_by_its_reason(data: bytes, reason: str) -> None:
    item = from_json(3, data)
    assert isinstance(item, Rejection)
    assert item.line == 3
    assert reason in item.reason


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ({"text": "a"}, Line(1, None, ["a"], is_group=False, copied={})),
        (
            {"text": "a", "id": 10**400},
            Line(1, None, ["a"], is_group=False, copied={"id": 10**400}),
        ),
        ({"text": "", "id": 7}, Line(1, None, [""], is_group=False, copied={"id": 7})),
        (
            {"context": "a\n", "candidate": "b", "id": None, "label": 1},
            Line(1, "a\n", ["b"], is_group=False, copied={"id": None}),
        ),
        (
            {"context": "", "candidates": ["b", ""], "id": "x"},
            Line(1, "", ["b", ""], is_group=True, copied={"id": "x"}),
        ),
    ],
)
def test_rows_of_every_form(line: dict[str, object], row: Line) -> None:
    assert from_json(1, json.dumps(line).encode()) == row


def test_lines_of_text_keep_everything_but_the_line_break() -> None:
    texts = [from_text(1, data) for data in (b" a \r\n", b"\n", b"b\r", b"\xff\n")]
    assert [text.candidates for text in texts[:3]] == [[" a "], [""], ["b\r"]]
    assert texts[3] == Rejection(1, "not UTF-8 at byte 1")


def test_a_line_that_would_fill_the_memory_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    long = b'{"text": "' + b"a" * (2 * MAX_LINE_BYTES) + b'"}\n'
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n' + long + b'{"text": "b"}')
    source = open_source(Job(file, tmp_path / "out"))
    items = list(source)
    source.close()
    assert [type(item) for item, _ in items] == [Line, Rejection, Line]
    assert items[1][0] == Rejection(2, "longer than 16777216 bytes")
    assert items[-1][1] == source.total == file.stat().st_size


LINES = st.one_of(
    st.integers(1, 9).map(lambda n: Line(1, "c", ["a"] * n, is_group=True, copied={})),
    st.just(Rejection(1, "blank")),
)


@given(st.lists(LINES, max_size=60), st.integers(1, 8))
def test_chunks_hold_every_line_once_and_few_rows(items: list[Line], max_rows: int) -> None:
    numbered = [(item, end) for end, item in enumerate(items, start=1)]
    found = list(chunks(numbered, max_rows))
    assert [row for chunk in found for row in chunk.lines] == [
        item for item in items if isinstance(item, Line)
    ]
    assert sum(len(chunk.rejections) + len(chunk.lines) for chunk in found) == len(items)
    assert all(chunk.n_rows <= max_rows or len(chunk.lines) == 1 for chunk in found)
    assert [chunk.end for chunk in found] == sorted({chunk.end for chunk in found})


def of_context(number: int) -> Line:
    return Line(1, f"{number}", ["a"], is_group=False, copied={})


def sizes(contexts: list[int], max_rows: int) -> list[list[int]]:
    numbered = [(of_context(one), end) for end, one in enumerate(contexts, start=1)]
    return [[int(str(line.context)) for line in one.lines] for one in chunks(numbered, max_rows)]


def test_neighbours_of_one_context_are_in_one_chunk() -> None:
    assert sizes([1, 1, 1, 2, 2, 2, 3], 5) == [[1, 1, 1], [2, 2, 2, 3]]
    assert sizes([1, 2, 2, 2, 2, 2, 2, 3], 4) == [[1], [2, 2, 2, 2], [2, 2, 3]]
    assert sizes([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 8))
def test_a_run_of_one_context_is_cut_only_if_it_is_too_long(
    contexts: list[int], max_rows: int
) -> None:
    found = sizes(contexts, max_rows)
    assert [one for chunk in found for one in chunk] == contexts
    for left, right in itertools.pairwise(found):
        if left[-1] == right[0]:  # then it fills a chunk by itself
            assert left == [right[0]] * max_rows
