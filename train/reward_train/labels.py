"""What became of a reply: its label, and why it was not accepted."""

from collections.abc import Mapping
from typing import Any

MIN_REMAINING = 2
"""How many further messages of the user make a reply accepted.

Two is the number in Chai's script for its retry models (`v0_retry_accept/train.py` of
chai-research/lmgym); the model card names none.
"""


def label_of(row: Mapping[str, Any], min_remaining: int = MIN_REMAINING) -> float:
    """The label of a row, 1 accepted or 0 not: its own, or by Chai's rule.

    >>> label_of({"retry": False, "remaining_user_messages": 2})
    1.0

    Raises:
        ValueError: the row has no valid label, and nothing that gives one.
    """
    label = row.get("label")
    if label is None:
        retry, remaining = row.get("retry"), row.get("remaining_user_messages")
        if not (isinstance(retry, bool) and isinstance(remaining, int)):
            raise ValueError(
                'no "label" (0 or 1), and no "retry" (a boolean) with "remaining_user_messages"'
            )
        return float(not retry and remaining >= min_remaining)
    if label not in {0, 1}:
        raise ValueError('its "label" is neither 0 nor 1')
    return float(label)


def kind_of(row: Mapping[str, Any]) -> str:
    """Why a row was not accepted; "" if it does not say.

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
