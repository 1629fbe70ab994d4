"""A window as named figures, for places that keep curves: MLflow, TensorBoard."""

from clipdrift_contract.events import GradWindow


def curves(window: GradWindow) -> dict[str, float]:
    """Means over the window's finite steps, by the name of their curve.

    Returns:
        Finite numbers only; a curve that has no value in this window is left out.

    Example:
        >>> window = GradWindow(run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=50,
        ...                     num_clipped=25, norm_sum=100.0, norm_removed_sum=40.0, norm_max=9.0, loss_sum=25.0)
        >>> {name: value for name, value in curves(window).items() if value}
        {'loss': 0.5, 'grad_norm': 2.0, 'grad_norm_max': 9.0, 'removed_mass_ratio': 0.4, 'clip_rate_ratio': 0.5}
    """
    num_finite = window.num_steps - window.num_nonfinite
    found = {
        "learning_rate": window.learning_rate_sum / max(1, window.num_steps),
        "nonfinite_steps": float(window.num_nonfinite),
        "skipped_steps": float(window.num_skipped),
        "fault_steps": float(sum(fault.num_steps for fault in window.faults)),
    }
    if window.max_norm_last is not None:
        found["clip_bound"] = window.max_norm_last
    if num_finite > 0:
        found = {
            "loss": window.loss_sum / num_finite,
            "grad_norm": window.norm_sum / num_finite,
            "grad_norm_max": window.norm_max,
            "removed_mass_ratio": window.norm_removed_sum / window.norm_sum if window.norm_sum > 0 else 0.0,
            "clip_rate_ratio": window.num_clipped / num_finite,
            "coefficient": window.coefficient_sum / num_finite,
            "effective_learning_rate": window.effective_learning_rate_sum / num_finite,
            **{f"group_grad_norm/{group.name}": group.norm_sum / num_finite for group in window.groups},
        } | found
    return {name: value for name, value in found.items() if abs(value) < float("inf")}


def step_after(window: GradWindow) -> int:
    """Steps that were done when the window ended: where its figures stand on a curve."""
    return window.step_first + window.num_steps
