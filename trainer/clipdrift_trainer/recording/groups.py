"""Which layers belong together: a few groups that people can look at, where a model has hundreds of tensors."""

from collections.abc import Sequence


def layer_groups(names: Sequence[str], most: int = 12) -> list[str]:
    """For each parameter the group of layers it belongs to: the deepest module path that gives at most `most` groups.

    Where even the outermost modules are more than that, neighbours share a group, named after its first and last.

    Args:
        names: Names of parameters, as `module.named_parameters()` gives them.
        most: Largest number of groups, >= 1.

    Example:
        >>> layer_groups(["embed.weight", "blocks.0.attn.weight", "blocks.0.mlp.weight", "blocks.1.attn.weight"], most=3)
        ['embed', 'blocks.0', 'blocks.0', 'blocks.1']
        >>> layer_groups(["weight", "bias"])
        ['weight', 'bias']
    """
    if most < 1:
        raise ValueError(f"most must be >= 1, got {most!r}")
    paths = [name.split(".")[:-1] or [name] for name in names]
    for depth in range(max(map(len, paths), default=1), 0, -1):
        groups = [".".join(path[:depth]) for path in paths]
        if len(set(groups)) <= most:
            return groups
    outer = list(dict.fromkeys(path[0] for path in paths))
    size = -(-len(outer) // most)
    shared: dict[str, str] = {}
    for start in range(0, len(outer), size):
        part = outer[start : start + size]
        shared |= dict.fromkeys(part, part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}")
    return [shared[path[0]] for path in paths]
