"""How many series the exporter may tell of: of many inputs and slices, those that moved or lost most."""

from collections.abc import Collection, Mapping

import msgspec

SERIES_PER_SLICE = 5  # accuracy, both ends of its interval, what was validated, labels


class ExportConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.export]`: how many series `GET /metrics` may have. What is left out stays in the store, on the pages and in the
    JSON interface, and `clipdrift_monitor_parts_left_out` says how much it is."""

    max_features: int = 20
    """Most inputs of a model whose drift is exported: those that moved most."""
    max_slices: int = 20
    """Most slices of a model whose accuracy is exported: those that lost most."""
    max_series: int = 30_000
    """Most series of inputs and slices, over all models. With more models each has fewer inputs and slices, at least one of
    each."""

    def __post_init__(self) -> None:
        for name in ("max_features", "max_slices", "max_series"):
            if getattr(self, name) < 1:
                raise ValueError(f"monitor.export.{name} must be >= 1, got {getattr(self, name)!r}")


class SeriesBudget:
    """What each model may have at one scrape.

    Args:
        config: The limits.
        num_models: How many share `max_series`.

    Example:
        >>> budget = SeriesBudget(ExportConfig(max_series=1_200), num_models=20)
        >>> budget.num_features, budget.num_slices  # 60 series each, where 20 inputs and 20 slices would be 120
        (10, 10)
        >>> budget.features({f"x{index}": index / 100 for index in range(12)})[:2]
        ['x11', 'x10']
    """

    def __init__(self, config: ExportConfig, num_models: int) -> None:
        wanted = config.max_features + SERIES_PER_SLICE * config.max_slices
        share = min(1.0, config.max_series / max(1, num_models) / wanted)
        self.num_features = max(1, int(share * config.max_features))
        self.num_slices = max(1, int(share * config.max_slices))
        self.num_features_left_out = 0
        self.num_slices_left_out = 0

    def features(self, scores: Mapping[str, float]) -> list[str]:
        """Those that moved most, the furthest first; the rest is counted as left out."""
        ranked = sorted(scores, key=lambda name: (-scores[name], name))
        self.num_features_left_out += len(ranked[self.num_features :])
        return ranked[: self.num_features]

    def slices(self, names: Collection[str], losses: Mapping[str, float]) -> frozenset[str]:
        """Those that lost most; of whose loss nothing is known come last, by name. The rest is counted as left out.

        Args:
            names: Of all slices of the model.
            losses: Validated minus live accuracy, where both are known.
        """
        ranked = sorted(names, key=lambda name: (-losses.get(name, float("-inf")), name))
        self.num_slices_left_out += len(ranked[self.num_slices :])
        return frozenset(ranked[: self.num_slices])
