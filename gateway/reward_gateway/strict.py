"""JSON as its standard defines it: Python's reader also takes NaN and infinities."""

import json
from typing import Any


def read_json(content: bytes) -> Any:  # noqa: ANN401  # JSON
    """Read the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not a number in JSON")
