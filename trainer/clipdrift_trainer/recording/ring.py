"""The recorded rows of a window on the gradients' device: nothing here makes the host wait, but for `fetch`."""

from collections.abc import Sequence

import numpy as np
import torch

from clipdrift_trainer.clipping.rules import ClipStep
from clipdrift_trainer.recording.window import NUM_COLUMNS, Column, Floats

_MOST_PLACES = 256


class Ring:
    """Up to `length` rows of the norms of P tensors and the columns of `Column`, float32.

    Args:
        parameters: The P tensors, in the order of the norms.
        length: Rows.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], length: int) -> None:
        self._parameters = parameters
        self._position = {id(parameter): i for i, parameter in enumerate(parameters)}
        self._places: dict[tuple[int, ...], torch.Tensor] = {}  # by positions: on a GPU, making one is a copy
        device = parameters[0].device
        self._rows = torch.full((length, len(parameters) + NUM_COLUMNS), float("nan"), device=device)
        self._no_loss = torch.full((), float("nan"), device=device)

    def __len__(self) -> int:
        return len(self._rows)

    def position(self, parameter: torch.Tensor) -> int | None:
        """Where the tensor's norm stands; None: it is none of these."""
        return self._position.get(id(parameter))

    def write(self, index: int, chosen: Sequence[torch.Tensor], done: ClipStep, loss: torch.Tensor | None) -> None:
        """A clipped step: `done.norm_P` are the norms of those of `chosen` that have a gradient; the others' are 0."""
        row = self._rows[index]
        self._write_norms(row[:-NUM_COLUMNS], chosen, done.norm_P)
        told = self._no_loss if loss is None else loss.detach().to(row.device, torch.float32, non_blocking=True)
        columns = (done.norm_before, done.norm_after, done.coefficient, done.bound, told)
        torch.stack(columns, out=row[-NUM_COLUMNS:-1])

    def write_unclipped(self, index: int, norm_P: torch.Tensor, total: torch.Tensor) -> None:
        """What the optimizer met in a step on which clipping did not act."""
        row = self._rows[index]
        self._write_norms(row[:-NUM_COLUMNS], self._parameters, norm_P)
        row[Column.TOTAL] = row[Column.AFTER] = total
        row[Column.COEFFICIENT] = 1.0
        row[Column.BOUND] = torch.nan_to_num(row[Column.BOUND], nan=float("inf"), posinf=float("inf"))

    def write_consumed(self, index: int, total: torch.Tensor) -> None:
        """The norm that the optimizer met."""
        self._rows[index, Column.CONSUMED] = total

    def copy(self, num_rows: int) -> torch.Tensor:
        """The first rows on the host; not a view, which on a CPU `cpu()` would be."""
        return self._rows[:num_rows].cpu().clone()

    def restore(self, rows: torch.Tensor) -> None:
        """Take up what `copy` gave.

        Raises:
            ValueError: The rows are of another number of tensors, or too many.
        """
        if rows.shape[1:] != self._rows.shape[1:] or len(rows) > len(self._rows):
            raise ValueError(
                f"the state holds {tuple(rows.shape)} rows, this recorder takes at most {len(self._rows)} of "
                f"{self._rows.shape[1]}: it is of another model or window_steps"
            )
        self._rows[: len(rows)] = rows.to(self._rows.device)

    def fetch(self, num_rows: int, beside: torch.Tensor | None = None) -> tuple[Floats, Floats | None]:
        """The first rows and, in the same copy, a tensor that lies beside them; both as float64 on the host."""
        rows = self._rows[:num_rows]
        if beside is None:
            return rows.cpu().numpy().astype(np.float64), None
        together = torch.cat([rows.flatten(), beside.flatten().to(rows)]).cpu().numpy().astype(np.float64)
        return together[: rows.numel()].reshape(rows.shape), together[rows.numel() :].reshape(beside.shape)

    def clear(self) -> None:
        self._rows.fill_(float("nan"))

    def _write_norms(self, out: torch.Tensor, chosen: Sequence[torch.Tensor], norm_P: torch.Tensor) -> None:
        if chosen is self._parameters and len(norm_P) == len(out):
            out.copy_(norm_P)
            return
        with_gradient = [parameter for parameter in chosen if parameter.grad is not None]
        known = [(i, place) for i, one in enumerate(with_gradient) if (place := self.position(one)) is not None]
        out.zero_()
        if known:
            source, target = self._index(tuple(i for i, _ in known)), self._index(tuple(place for _, place in known))
            out[target] = norm_P.to(out.dtype)[source]

    def _index(self, places: tuple[int, ...]) -> torch.Tensor:
        if places not in self._places:
            if len(self._places) >= _MOST_PLACES:  # as where experts take turns
                self._places.clear()
            self._places[places] = torch.tensor(places, device=self._rows.device)
        return self._places[places]
