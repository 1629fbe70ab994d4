"""The dashboards: one question each, answered from top to bottom."""

from clipdrift_dashboards.board import Board
from clipdrift_dashboards.boards import fleet, model, pipeline, retraining, slices, training
from clipdrift_dashboards.links import Links


def boards(links: Links) -> tuple[Board, ...]:
    """All of them, from the whole fleet down to the plumbing."""
    return tuple(part.board(links) for part in (fleet, model, slices, training, retraining, pipeline))
