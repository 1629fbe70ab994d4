"""What this process has answered and been told so far: quick figures for an operator; the monitor's are the true ones."""


class Live:
    """Counts of one model in this process's life."""

    __slots__ = ("num_correct", "num_labels", "num_requests", "num_rows")

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_rows = 0
        self.num_labels = 0
        self.num_correct = 0

    @property
    def accuracy(self) -> float | None:
        """Share of labels that equal the prediction; None before the first."""
        return self.num_correct / self.num_labels if self.num_labels else None


class LiveFigures:
    """`Live` by model name."""

    def __init__(self) -> None:
        self._of: dict[str, Live] = {}

    def of(self, model: str) -> Live:
        """The counts of a model, made on first use."""
        found = self._of.get(model)
        if found is None:
            found = self._of[model] = Live()
        return found
