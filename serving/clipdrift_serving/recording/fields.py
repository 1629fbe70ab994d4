"""What of a request's features may leave the process: a policy for personal data, applied when batches are packed.

Deny by default: what the model's reference profile does not declare is not recorded unless a rule names it. What it declares is
recorded as it is, unless a rule says otherwise. Whatever a rule cannot do with a column (a bucket of words, say) drops it.
"""

import hmac
import logging
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.profile import OTHER, FeatureProfile, ReferenceProfile, summarise

FieldAction = Literal["keep", "drop", "hmac", "bucket", "known"]
HMAC_SUFFIX = "#hmac"
_HMAC_BYTES = 8
_MAX_REMEMBERED = 100_000
_MIN_SECRET_BYTES = 16
_log = logging.getLogger(__name__)
Values = npt.NDArray[Any]


class FieldRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[serving.fields.rules]]`: what is recorded of one feature."""

    feature: str
    """Name of the feature, as the model's input is called."""
    action: FieldAction
    """keep: as it is. drop: not at all. known: the categories of the reference profile, all others as "(other)". bucket: a
    number as the lower end of its bucket. hmac: 16 hex digits, equal for equal values, recorded as `<feature>#hmac`."""
    model: str = ""
    """The model that it is about; empty: every model. A rule for one model goes before one for all."""
    width: float = 0.0
    """Of a bucket; 0: the bins of the reference profile."""

    def __post_init__(self) -> None:
        if not self.feature:
            raise ValueError("a rule of serving.fields needs the name of a feature, got ''")
        if not 0 <= self.width < float("inf"):
            raise ValueError(f"the width of a bucket must be >= 0, got {self.width!r} for feature {self.feature!r}")
        if self.width and self.action != "bucket":
            raise ValueError(f"a width belongs to the action bucket, got {self.action!r} for feature {self.feature!r}")


class FieldPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serving.fields]`: what of the features is recorded."""

    rules: tuple[FieldRule, ...] = ()
    """One a feature; a declared feature without one is kept, any other is dropped."""
    keep_declared: bool = True
    """Whether what the reference profile declares is kept without a rule; false: only what a rule names is recorded."""
    hmac_key: str = ""
    """32 or more hex digits; empty: derived from the oldest receipt key. Another key gives other digits."""

    def __post_init__(self) -> None:
        places = [(rule.model, rule.feature) for rule in self.rules]
        twice = sorted({place for place in places if places.count(place) > 1})
        if twice:
            raise ValueError(f"serving.fields has two rules for one feature (model, feature): {twice}")
        try:
            key = bytes.fromhex(self.hmac_key)
        except ValueError as error:
            raise ValueError("the key of serving.fields is written in hex digits") from error
        if key and len(key) < _MIN_SECRET_BYTES:
            raise ValueError(f"the key of serving.fields has at least {2 * _MIN_SECRET_BYTES} hex digits")

    def __repr__(self) -> str:
        """Holds a secret, so it shows none."""
        return f"FieldPolicy(rules={self.rules!r}, keep_declared={self.keep_declared!r}, hmac_key=...)"

    def rule_for(self, model: str, feature: str, *, is_declared: bool) -> FieldRule:
        """What is done with a feature of a model."""
        found = {rule.model: rule for rule in self.rules if rule.feature == feature and rule.model in ("", model)}
        default: FieldAction = "keep" if is_declared and self.keep_declared else "drop"
        return found.get(model) or found.get("") or FieldRule(feature=feature, action=default)


class Fields:
    """Applies a policy. One thread only; what it remembers is bounded.

    Example:
        >>> policy = FieldPolicy(rules=(FieldRule(feature="age", action="bucket", width=10),))
        >>> features = {"age": np.array([41.0, np.nan]), "name": np.array(["Ann", "Bo"], object)}
        >>> recorded = Fields(policy).apply("m", None, features)
        >>> {name: values.tolist() for name, values in recorded.items()}
        {'age': [40.0, nan]}
    """

    def __init__(self, policy: FieldPolicy) -> None:
        self._policy = policy
        self._key = bytes.fromhex(policy.hmac_key)
        if not self._key and any(rule.action == "hmac" for rule in policy.rules):
            raise ValueError("a rule with hmac needs a key")
        self._rules: dict[tuple[str, str, bool], FieldRule] = {}
        self._hashes: dict[tuple[str, str], str] = {}
        self._profiles: dict[int, tuple[ReferenceProfile, dict[str, FeatureProfile]]] = {}
        self._refused: set[tuple[str, str]] = set()

    def apply(self, model: str, profile: ReferenceProfile | None, features: Mapping[str, Values]) -> Mapping[str, Values]:
        """The columns to record. Columns that are kept come back as they are; NaN, infinite and empty values stay so.

        Args:
            model: Whose rules hold.
            profile: What the model declares; None: nothing.
            features: Columns of N rows.
        """
        declared = self._declared(profile)
        recorded: dict[str, Values] = {}
        for name, values in features.items():
            of = declared.get(name)
            rule = self._rule(model, name, is_declared=of is not None)
            found = self._changed(rule, of, values)
            if found is not None:
                recorded[name + HMAC_SUFFIX if rule.action == "hmac" else name] = found
            elif rule.action != "drop" and (model, name) not in self._refused:
                self._refused.add((model, name))
                _log.warning(
                    "feature %s of %s is not recorded: its values are nothing for the rule %r", name, model, rule.action
                )
        return recorded

    def _changed(self, rule: FieldRule, of: FeatureProfile | None, values: Values) -> Values | None:
        """The values to record; None: none."""
        is_words = values.dtype.kind in "OUS"
        if rule.action == "keep":
            return values
        if rule.action == "hmac":
            return self._hashed(rule.feature, values) if values.ndim == 1 else None
        if rule.action == "bucket" and not is_words:
            return bucketed(of, rule.width, values)
        if rule.action == "known" and is_words and of is not None and of.spec.kind == "categorical":
            return known(of, values)
        return None

    def _hashed(self, feature: str, values_N: Values) -> Values:
        """Equal values of one feature give equal digits, those of two features do not. What is missing stays empty."""
        hashes = self._hashes
        if len(hashes) > _MAX_REMEMBERED:
            hashes.clear()
        found = []
        for value in values_N.tolist():
            word = "" if value != value else _word(value)  # NaN is missing
            place = (feature, word)
            digits = hashes.get(place)
            if digits is None:
                message = feature.encode() + b"\0" + word.encode(errors="surrogatepass")
                digits = "" if not word else hmac.digest(self._key, message, "sha256")[:_HMAC_BYTES].hex()
                hashes[place] = digits
            found.append(digits)
        return np.array(found, object)

    def _rule(self, model: str, feature: str, *, is_declared: bool) -> FieldRule:
        place = (model, feature, is_declared)
        rule = self._rules.get(place)
        if rule is None:
            rule = self._rules[place] = self._policy.rule_for(model, feature, is_declared=is_declared)
        return rule

    def _declared(self, profile: ReferenceProfile | None) -> dict[str, FeatureProfile]:
        if profile is None:
            return {}
        known_profile = self._profiles.get(id(profile))
        if known_profile is None:
            if len(self._profiles) > 256:  # of deployments that are over
                self._profiles.clear()
            known_profile = profile, {feature.spec.name: feature for feature in profile.features}
            self._profiles[id(profile)] = known_profile  # with the profile itself, so that its id is nobody else's
        return known_profile[1]


def bucketed(of: FeatureProfile | None, width: float, values: Values) -> Values | None:
    """Each number as the lower end of its bucket; None where there are no buckets.

    Without a width the buckets are the bins of the reference profile, so that the monitor counts exactly what it would have
    counted: the first bin, which has no lower end, becomes the number just below its upper one. A sequence is then one number a
    row, its summary, of shape [N]; with a width its shape is kept. What is not finite stays as it is.

    Example:
        >>> bucketed(None, 5.0, np.array([12.0, -0.1])).tolist()
        [10.0, -5.0]
    """
    numbers = values.astype(np.float64)
    if width:
        buckets: Values = np.where(np.isfinite(numbers), np.floor(numbers / width) * width, numbers)
        return buckets
    if of is None or of.spec.kind == "categorical":
        return None
    number_N = summarise(numbers)
    edges = np.asarray(of.edges, np.float64)
    if not len(edges):
        return np.where(np.isfinite(number_N), 0.0, number_N)
    ends = np.concatenate([[np.nextafter(edges[0], -np.inf)], edges])
    return np.where(np.isfinite(number_N), ends[np.searchsorted(edges, number_N, side="right")], number_N)


def known(of: FeatureProfile, values_N: Values) -> Values:
    """Categories of the profile as they are, an empty string too, all else as "(other)": it may be anything a user typed."""
    lookup = {name: name for name in (*of.categories, "")}
    return np.array([lookup.get(_word(value), OTHER) for value in values_N.ravel().tolist()], object).reshape(values_N.shape)


def _word(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
