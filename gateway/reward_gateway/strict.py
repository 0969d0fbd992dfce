"""JSON as its standard has it: Python's reader takes NaN and infinities besides."""

import json
from typing import Any


def read_json(content: bytes) -> Any:  # noqa: ANN401  # JSON
    """The value of a text.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number in JSON")
