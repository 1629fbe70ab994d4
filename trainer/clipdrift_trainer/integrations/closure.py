"""What happens right before the optimizer uses the gradients, also where `optimizer.step(closure)` makes them."""

from collections.abc import Callable
from typing import Any

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def when_gradients_are_there(then: Callable[[], object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
    """Call `then` at once; or, where the step was given a closure (which runs backward inside the step), have it called at the
    closure's end.

    Lightning steps like that in automatic optimization, and L-BFGS needs it: a hook before the step then sees the gradients of
    the step before.

    Args:
        then: What to do.
        args: The positional arguments of a hook before `Optimizer.step`, the optimizer first.
        kwargs: Its named ones.

    Returns:
        None, or the arguments that the hook has to return.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        then()
        return None

    def with_then() -> Any:
        loss = closure()
        then()
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": with_then}
    return (args[0], with_then, *args[2:]), kwargs
