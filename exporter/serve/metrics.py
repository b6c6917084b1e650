"""What a service counts of itself, in the text format of Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts of one process; `model` has facts about what is served, by name."""

    def __init__(self, model: Mapping[str, str], connections: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("cocorr_serve_requests", "Answers by their status.", ["status"], registry=registry)
        self.seconds = Histogram(
            "cocorr_serve_request_seconds",
            "From a request's head to the head of its answer, of what the model is asked.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "cocorr_serve_batch_users", "Users in one call of the model.", buckets=_USERS, registry=registry
        )
        self.waiting = Gauge("cocorr_serve_queue_users", "Users who wait for the model.", registry=registry)
        self.in_flight = Gauge("cocorr_serve_in_flight", "Requests that are not answered yet.", registry=registry)
        Gauge("cocorr_serve_connections", "Open connections.", registry=registry).set_function(connections)
        Info("cocorr_serve_model", "What is served.", registry=registry).info(dict(model))

    def text(self) -> bytes:
        """Return all counts."""
        return generate_latest(self._registry)
