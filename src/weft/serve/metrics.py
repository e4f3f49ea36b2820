"""What `/metrics` shows, in Prometheus' text form. Each server has its own registry: two in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.submitted = Counter("weft_submitted", "Experiments accepted", ["model"], registry=self.registry)
        self.answered = Counter(
            "weft_answered", "Experiments answered from a record", ["model"], registry=self.registry
        )
        self.refused = Counter("weft_refused", "Experiments refused", ["code"], registry=self.registry)
        self.received = Counter("weft_received_bytes", "Bytes that came in", ["what"], registry=self.registry)
        self.ended = Counter("weft_ended", "Jobs ended", ["model", "state"], registry=self.registry)
        self.restarts = Counter("weft_worker_restarts", "Workers that died", ["model"], registry=self.registry)
        self.running = Gauge("weft_running", "Jobs running now", ["model"], registry=self.registry)
        self.seconds = Histogram("weft_job_seconds", "From acceptance to the end", ["model"], registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
