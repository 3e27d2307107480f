"""What the server counts, in the format of Prometheus."""

from __future__ import annotations

from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from training.serving.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)


class Metrics:
    """Counters of one server; `running` and `waiting` are asked of the engine when they are read."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "gristmill_requests", "Requests by route and status; 499: the client left.", ["route", "status"], **where
        )
        self.seconds = Histogram(
            "gristmill_request_seconds", "From a request to its last byte.", ["route"], buckets=SECONDS, **where
        )
        self.first = Histogram(
            "gristmill_first_token_seconds", "From a request to its first text.", buckets=SECONDS, **where
        )
        self.prompt = Counter("gristmill_prompt_tokens", "Tokens of prompts and texts that were read.", **where)
        self.written = Counter("gristmill_generated_tokens", "Tokens that were written.", **where)
        for name, said in (("running", "Items that are worked on."), ("waiting", "Items that wait.")):
            gauge = Gauge(f"gristmill_{name}", said, **where)
            gauge.set_function(partial(_size, engine, name))

    def text(self) -> tuple[bytes, str]:
        """All of it, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def _size(engine: Engine, name: str) -> float:
    return float(getattr(engine, name))
