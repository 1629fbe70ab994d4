"""A panel's answers with all that its JSON says of how they look: names, units, colours, overrides."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from clipdrift_dashboards.viewer.asking import Series
from clipdrift_dashboards.viewer.numbers import shown

PALETTE = ("#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C", "#B877D9", "#8AB8FF", "#FFA6B0", "#C0D8FF", "#96D98D",
           "#FADE2A", "#CA95E5")  # fmt: skip
"""Grafana's classic palette, for lines that no override gives a colour."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One line, or one figure. `config` is the panel's defaults with the overrides of this field on top."""

    name: str
    samples: tuple[tuple[float, float], ...]
    config: Mapping[str, Any]
    place: int
    """Among the panel's fields: the palette goes by it."""

    @property
    def custom(self) -> Mapping[str, Any]:
        return self.config.get("custom", {})  # type: ignore[no-any-return]

    @property
    def shown_name(self) -> str:
        return str(self.config.get("displayName", self.name))

    @property
    def color(self) -> str:
        """Of a line."""
        return str(self.config.get("color", {}).get("fixedColor", PALETTE[self.place % len(PALETTE)]))

    @property
    def is_hidden(self) -> bool:
        """From the legend."""
        return bool(self.custom.get("hideFrom", {}).get("legend", False))

    @property
    def last(self) -> float | None:
        """The newest value that is a number."""
        return next((value for _, value in reversed(self.samples) if value == value), None)

    def text(self, value: float) -> str:
        """A value in words, or with its unit."""
        found = mapped(self.config, value)
        return found["text"] if found else shown(value, self.config.get("unit", "none"), int(self.config.get("decimals", 0)))

    def value_color(self, value: float) -> str:
        """The colour of a figure: of its word, its own, or of the threshold that it has passed; empty: none."""
        found = mapped(self.config, value)
        if found:
            return str(found["color"])
        if "color" in self.config and "fixedColor" in self.config["color"]:
            return str(self.config["color"]["fixedColor"])
        return threshold_color(self.config, value)


def fields_of(panel: Mapping[str, Any], answers: Iterable[tuple[Mapping[str, Any], list[Series]]]) -> list[Field]:
    """Fields in the order of queries, from (target, its series)."""
    found: list[Field] = []
    for target, series in answers:
        for one in series:
            name = name_of(str(target.get("legendFormat", "__auto")), one.labels)
            found.append(Field(name=name, samples=one.samples, config=config_of(panel, name), place=len(found)))
    return found


def config_of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The panel's defaults with the overrides for the field `name` on top."""
    config: dict[str, Any] = {**panel["fieldConfig"]["defaults"]}
    config["custom"] = {**config.get("custom", {})}
    for override in panel["fieldConfig"].get("overrides", []):
        if override["matcher"] == {"id": "byName", "options": name}:
            for one in override["properties"]:
                key = str(one["id"])
                if key.startswith("custom."):
                    config["custom"][key.removeprefix("custom.")] = one["value"]
                else:
                    config[key] = one["value"]
    return config


def name_of(legend: str, labels: Mapping[str, str]) -> str:
    """A series' name by its legend.

    >>> name_of("{{version}} ({{role}})", {"version": "3", "role": "canary"}), name_of("__auto", {"model": "pump"})
    ('3 (canary)', 'pump')
    """
    if legend != "__auto":
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
    values = [value for key, value in labels.items() if key != "__name__"]
    return values[0] if len(values) == 1 else "{" + ", ".join(f'{k}="{v}"' for k, v in labels.items()) + "}"


def mapped(config: Mapping[str, Any], value: float) -> Mapping[str, Any] | None:
    """Word and colour that stand for a value."""
    key = f"{value:g}"
    for mapping in config.get("mappings", []):
        if mapping["type"] == "value" and key in mapping["options"]:
            return mapping["options"][key]  # type: ignore[no-any-return]
    return None


def threshold_color(config: Mapping[str, Any], value: float) -> str:
    """Of the highest step that is not above the value."""
    color = ""
    for step in config.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return color
