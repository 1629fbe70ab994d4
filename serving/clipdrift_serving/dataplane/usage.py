"""What one version has cost so far: the figures behind statistics, cost and capacity."""


class Usage:
    """Plain sums of one model version in this process's life. Times are nanoseconds; one thread (the event loop's) only."""

    __slots__ = (
        "compute_ns", "cpu_ns", "last_ms", "num_bytes_in", "num_failed", "num_requests", "num_rows",
        "num_runs", "queue_ns", "runs_by_rows", "total_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.num_requests = 0  # answered
        self.num_failed = 0  # asked, and not answered because of what they held
        self.num_rows = 0
        self.num_runs = 0  # of the session: one answers every request of one turn
        self.queue_ns = 0  # from the request's last byte to the start of the run that answered it
        self.compute_ns = 0  # inside the session, on the wall clock, once a run
        self.cpu_ns = 0  # of the thread, for the runs and for what is done with their answers
        self.total_ns = 0  # from the request's last byte to its answer
        self.num_bytes_in = 0
        self.last_ms = 0  # time of the last answer
        self.runs_by_rows: dict[int, list[int]] = {}  # rows in the run, rounded up to a power of two -> [runs, compute_ns]

    def ran(self, num_rows: int, compute_ns: int) -> None:
        """Count one run of the session over `num_rows` rows."""
        self.num_runs += 1
        self.compute_ns += compute_ns
        size = 1 << (num_rows - 1).bit_length()
        known = self.runs_by_rows.get(size)
        if known is None:
            self.runs_by_rows[size] = [1, compute_ns]
        else:
            known[0] += 1
            known[1] += compute_ns
