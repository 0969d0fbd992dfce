"""How long bulk scoring waits for a server, and how many calls it has in flight."""

import asyncio

import pytest

from reward_client import DeadlineError, ModelNotFoundError, ServerError, UnavailableError
from reward_client.bulk import Job
from reward_client.bulk.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience, Window, pause_s


def test_pauses_double_up_to_the_longest() -> None:
    for attempt in range(1, 5000, 7):
        longest = min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 50), LONGEST_PAUSE_S)
        assert longest / 2 <= pause_s(attempt) <= longest


def test_a_window_halves_at_once_and_grows_slowly() -> None:
    window = Window(8)
    window.grow()
    assert window.size == 8
    window.shrink()
    assert window.size == 4
    for _ in range(4):
        window.grow()
    assert int(window.size) == 4
    for _ in range(100):
        window.grow()
    assert window.size == 8
    for _ in range(100):
        window.shrink()
    assert window.size == 1


def test_a_window_holds_no_more_than_its_size() -> None:
    async def most_at_once() -> int:
        window = Window(8)
        window.shrink()
        now = most = 0

        async def call() -> None:
            nonlocal now, most
            async with window.place():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(call() for _ in range(50)))
        return most

    assert asyncio.run(most_at_once()) == 4


def outcome(errors: list[ServerError], seconds: float) -> tuple[object, list[str]]:
    """The result of a call that raises these errors, then answers; and what was reported."""
    said: list[str] = []

    async def ask() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    async def run() -> object:
        try:
            return await Patience(seconds, 4, said.append).until_answered(ask)
        except ServerError as error:
            return error

    return asyncio.run(run()), said


def test_what_passes_is_waited_for_and_said_once() -> None:
    errors = [UnavailableError("away", url="a:1"), DeadlineError("late", url="a:1")]
    assert outcome(errors, 60) == ("answer", ["waiting for the server, 60 s at most: away"])


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    error = ModelNotFoundError("no such model", url="a:1")
    assert outcome([error, error], 60) == (error, [])


def test_patience_ends() -> None:
    errors: list[ServerError] = [UnavailableError(str(i), url="a:1") for i in range(100)]
    found, _ = outcome(errors, 0.3)
    assert isinstance(found, UnavailableError)
    assert 0 < len(errors) < 99


@pytest.mark.parametrize(
    "options", [{"in_flight": 0}, {"patience_s": -1}, {"patience_s": float("inf")}]
)
def test_senseless_jobs_are_refused(options: dict[str, float], tmp_path: object) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Job(tmp_path, tmp_path, **options)  # type: ignore[arg-type]
