"""Numbers of the server in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
GUARD_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """What the server counts. Made of a Service, whose queue and health it asks for."""

    def __init__(self, service):
        own = {"registry": CollectorRegistry()}
        self._registry = own["registry"]
        self.requests = Counter(
            "lvd_requests", "requests for a video, by the answer's status", ["status"], **own
        )
        self.verdicts = Counter(
            "lvd_verdicts", "videos, by the guard's verdict", ["verdict"], **own
        )
        self.unsafe = Counter(
            "lvd_unsafe", "unsafe videos, by category; one may have several", ["category"], **own
        )
        self.flagged = Counter(
            "lvd_flagged", "videos in which a flagged category was found", ["category"], **own
        )
        self.steps_run = Counter("lvd_steps_run", "denoising steps that were run", **own)
        self.steps_saved = Counter(
            "lvd_steps_saved", "denoising steps that the guard's verdicts made needless", **own
        )
        self.guard_seconds = Histogram(
            "lvd_guard_seconds", "detectors' seconds of one video", buckets=GUARD_SECONDS, **own
        )
        self.seconds = Histogram(
            "lvd_video_seconds",
            "from a request's arrival to its answer, of judged videos",
            ["verdict"],
            buckets=SECONDS,
            **own,
        )
        queue = Gauge("lvd_queue_length", "requests that wait for a worker", **own)
        queue.set_function(lambda: service.desk.waiting)
        running = Gauge("lvd_running", "requests that a worker samples", **own)
        running.set_function(lambda: service.desk.running)
        healthy = Gauge("lvd_healthy", "1, or 0 while /health is red", **own)
        healthy.set_function(lambda: int(not service.problem()))

    def count(self, call, outcome):
        """Count a settled call."""
        self.requests.labels(str(outcome.status)).inc()
        self.steps_run.inc(call.steps_run)
        if outcome.verdict:
            self.verdicts.labels(outcome.verdict).inc()
        if call.steps_run:
            self.guard_seconds.observe(call.guard_seconds)
            self.seconds.labels(str(outcome.verdict)).observe(call.seconds())
        if outcome.result:
            self.steps_saved.inc(outcome.result.steps_saved)
            for category in outcome.result.categories:
                self.unsafe.labels(category).inc()
            for category in outcome.result.flags:
                self.flagged.labels(category).inc()

    def text(self):
        """Return all numbers as Prometheus reads them."""
        return generate_latest(self._registry)
