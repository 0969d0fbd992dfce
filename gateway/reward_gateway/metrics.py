"""The gateway's metrics, for Prometheus."""

from typing import TypedDict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

NAMESPACE = "gpt2_reward_gateway"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
GAINS = (0.0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5)


class _Own(TypedDict):
    namespace: str
    registry: CollectorRegistry


class Metrics:
    """The gateway's own metrics, apart from those of other code in the process.

    Attributes:
        registry: holds the metrics.
        requests: answers, by route and outcome (`ok`, or the kind of the error).
        in_flight: requests in progress.
        seconds: duration of requests, by route.
        generating: seconds that drawing the candidates took.
        ranking: seconds that their rewards took.
        candidates: drawn per request, equal ones counted once.
        chosen: requests of best of N, by which candidate was returned (`first` or `another`).
        gain: reward of the returned candidate minus that of the first, which would have been
            returned without the reward model.
        unranked: requests answered without rewards, by reason.
        second_draws: requests whose first candidates were not good enough.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: _Own = {"namespace": NAMESPACE, "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["route", "outcome"], **own)
        self.in_flight = Gauge("in_flight", "Requests in progress.", **own)
        self.seconds = Histogram(
            "request_seconds", "Duration of requests.", ["route"], buckets=SECONDS, **own
        )
        self.generating = Histogram(
            "generation_seconds", "Time to draw the candidates.", buckets=SECONDS, **own
        )
        self.ranking = Histogram(
            "ranking_seconds", "Time to rank the candidates.", buckets=SECONDS, **own
        )
        self.candidates = Histogram(
            "candidates", "Distinct candidates per request.", buckets=NUMBERS, **own
        )
        self.chosen = Counter("chosen", "Requests by the candidate returned.", ["which"], **own)
        self.gain = Histogram(
            "reward_gain", "Reward of the answer minus the first one's.", buckets=GAINS, **own
        )
        self.unranked = Counter("unranked", "Answers without rewards.", ["reason"], **own)
        self.second_draws = Counter("second_draws", "Requests with a second draw.", **own)
