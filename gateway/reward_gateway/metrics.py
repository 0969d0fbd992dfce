"""What a gateway counts, in Prometheus' form."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
GAINS = (0.0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5)


class Metrics:
    """The gateway's own, apart from those of other programs in the process.

    Attributes:
        registry: holds them.
        requests: answers, by route and outcome (`ok`, or the kind of the error).
        in_flight: requests now.
        seconds: of a request, by route.
        generating: seconds until the candidates were there.
        ranking: seconds until their rewards were there.
        candidates: drawn for a request, equal ones counted once.
        chosen: requests of best of N, by which candidate was answered (`first` or `another`).
        gain: reward of the answered candidate above the first one's, which would have been
            answered without the reward model.
        unranked: requests answered without rewards, by reason.
        second_draws: requests whose first candidates were not good enough.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            _named("requests"), "Requests answered.", ["route", "outcome"], registry=registry
        )
        self.in_flight = Gauge(_named("in_flight"), "Requests on their way.", registry=registry)
        self.seconds = Histogram(
            _named("request_seconds"),
            "Duration of requests.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.generating = Histogram(
            _named("generation_seconds"),
            "Until the candidates were there.",
            buckets=SECONDS,
            registry=registry,
        )
        self.ranking = Histogram(
            _named("ranking_seconds"),
            "Until their rewards were there.",
            buckets=SECONDS,
            registry=registry,
        )
        self.candidates = Histogram(
            _named("candidates"),
            "Different candidates of a request.",
            buckets=NUMBERS,
            registry=registry,
        )
        self.chosen = Counter(
            _named("chosen"), "Requests by the candidate answered.", ["which"], registry=registry
        )
        self.gain = Histogram(
            _named("reward_gain"),
            "Reward of the answered candidate above the first.",
            buckets=GAINS,
            registry=registry,
        )
        self.unranked = Counter(
            _named("unranked"), "Answers without rewards.", ["reason"], registry=registry
        )
        self.second_draws = Counter(
            _named("second_draws"), "Requests drawn for twice.", registry=registry
        )


def _named(name: str) -> str:
    return f"gpt2_reward_gateway_{name}"
