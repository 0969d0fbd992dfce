"""What became of a reply: its label, and why it was not accepted."""

from collections.abc import Mapping
from typing import Any

MIN_REMAINING = 2
"""Further messages of the user that make a reply accepted.

Two is what Chai's script for its retry models has (`v0_retry_accept/train.py` of
chai-research/lmgym); the model card names no number.
"""


def label_of(row: Mapping[str, Any], min_remaining: int = MIN_REMAINING) -> float:
    """1 accepted, 0 not: the row's own, or by Chai's rule.

    >>> label_of({"retry": False, "remaining_user_messages": 2})
    1.0

    Raises:
        ValueError: the row does not say.
    """
    label = row.get("label")
    if label is None:
        retry, remaining = row.get("retry"), row.get("remaining_user_messages")
        if not (isinstance(retry, bool) and isinstance(remaining, int)):
            raise ValueError(
                'no "label" (0 or 1), nor "retry" (a boolean) with "remaining_user_messages"'
            )
        return float(not retry and remaining >= min_remaining)
    if label not in {0, 1}:
        raise ValueError('its "label" is neither 0 nor 1')
    return float(label)


def kind_of(row: Mapping[str, Any]) -> str:
    """Why a row that was not accepted was not; "" if it does not say.

    >>> kind_of({"retry": True, "remaining_user_messages": 7})
    'retry'

    Returns:
        The row's own "kind"; else `retry`, or `ended` for conversations that ended soon.
    """
    kind = row.get("kind")
    if isinstance(kind, str):
        return kind
    retry = row.get("retry")
    if not isinstance(retry, bool):
        return ""
    return "retry" if retry else "ended"
