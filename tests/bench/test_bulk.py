"""The input of the bulk suite: as varied as what people score."""

from itertools import islice

from reward_bench.suites.bulk import lines
from reward_bench.texts import all_dialogues


def test_no_text_comes_twice_before_every_turn_has_been_a_candidate() -> None:
    n_turns = sum(len(dialogue) - 1 for dialogue in all_dialogues())
    found = list(islice(lines(), n_turns + 1000))
    texts = [f"{line['context']}{line['candidate']}" for line in found]
    assert [line["id"] for line in found] == list(range(1, n_turns + 1001))
    assert len(set(texts)) > 0.97 * len(texts) > 50_000
