"""Norms of the gradient that each sample alone would give one layer, out of the layer's input and the gradient of its output:
no sample's gradient is formed where that is the dearer way.

Axes: B samples, T positions, H inputs and K outputs of a layer. All results are squared norms, float32 [B].
Source: Goodfellow 2015 (arXiv 1510.01799) for one position, Bu et al. 2022 (arXiv 2210.00038) for several.
"""

import torch
from torch import nn


def linear_squares(hidden: torch.Tensor, gradient: torch.Tensor, *, weight: bool = True, bias: bool = True) -> torch.Tensor:
    """Of a linear layer: input [B, ..., H], gradient of the output [B, ..., K].

    Args:
        hidden: The layer's input.
        gradient: Of the layer's output; one sample's part is that of its own loss.
        weight: Count the weight's gradient.
        bias: Count the bias's gradient.

    Example:
        >>> float(linear_squares(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0]])))
        9.0
    """
    hidden, gradient = hidden.float(), gradient.float()
    if gradient.dim() == 2:
        factor_B = (hidden.square().sum(dim=1) if weight else 0.0) + torch.full_like(gradient[:, 0], float(bias))
        return gradient.square().sum(dim=1) * factor_B
    hidden_BTH, gradient_BTK = hidden.flatten(1, -2), gradient.flatten(1, -2)
    squared_B = gradient_BTK.new_zeros(len(gradient_BTK))
    if weight:
        squared_B = squared_B + _outer_squares(hidden_BTH, gradient_BTK)
    return squared_B + gradient_BTK.sum(dim=1).square().sum(dim=1) if bias else squared_B


def layer_norm_squares(
    layer: nn.LayerNorm, hidden: torch.Tensor, gradient: torch.Tensor, *, weight: bool = True, bias: bool = True
) -> torch.Tensor:
    """Of a layer normalisation: weight's gradient sum_t d_t * x_t with x normalised, bias's sum_t d_t."""
    hidden, gradient = hidden.float(), gradient.float()
    num_kept = len(layer.normalized_shape)
    squared_B = gradient.new_zeros(len(gradient))
    if weight:
        normal = nn.functional.layer_norm(hidden, layer.normalized_shape, eps=layer.eps)
        squared_B = squared_B + _over_positions(gradient * normal, num_kept)
    return squared_B + _over_positions(gradient, num_kept) if bias else squared_B


def embedding_squares(layer: nn.Embedding, index: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Of an embedding: indices [B, ...], gradient [B, ..., K]; positions with the same index meet in one row."""
    gradient_BTK = gradient.float().reshape(len(gradient), -1, gradient.shape[-1])
    index_BT = index.reshape(len(index), -1)
    if layer.padding_idx is not None:  # that row never gets a gradient
        gradient_BTK = gradient_BTK * (index_BT != layer.padding_idx)[:, :, None]
    if index_BT.shape[1] == 1:
        return gradient_BTK.square().sum(dim=(1, 2))
    is_same_BTT = index_BT[:, :, None] == index_BT[:, None, :]
    return ((gradient_BTK @ gradient_BTK.mT) * is_same_BTT).sum(dim=(1, 2))


def conv1d_squares(
    layer: nn.Conv1d, hidden: torch.Tensor, gradient: torch.Tensor, *, weight: bool = True, bias: bool = True
) -> torch.Tensor:
    """Of a 1-D convolution padded with zeros: input [B, C, L], gradient of the output [B, K, L']."""
    hidden, gradient = hidden.float(), gradient.float()
    squared_B = gradient.new_zeros(len(gradient))
    if weight:
        (size,), (stride,), (dilation,), num_groups = layer.kernel_size, layer.stride, layer.dilation, layer.groups
        left, right = layer._reversed_padding_repeated_twice
        patches_BCPL = nn.functional.unfold(
            nn.functional.pad(hidden, (left, right))[:, :, None, :], (1, size), dilation=(1, dilation), stride=(1, stride)
        )
        patches_BGPL = patches_BCPL.reshape(len(hidden), num_groups, -1, patches_BCPL.shape[-1])
        gradient_BGKL = gradient.reshape(len(gradient), num_groups, -1, gradient.shape[-1])
        squared_B = squared_B + (gradient_BGKL @ patches_BGPL.mT).square().sum(dim=(1, 2, 3))
    return squared_B + gradient.sum(dim=2).square().sum(dim=1) if bias else squared_B


def _outer_squares(hidden_BTH: torch.Tensor, gradient_BTK: torch.Tensor) -> torch.Tensor:
    """||sum_t d_t h_t^T||^2, by the cheaper of its two exact forms."""
    num_positions, width = gradient_BTK.shape[1], gradient_BTK.shape[2] * hidden_BTH.shape[2]
    if 2 * num_positions**2 <= width:  # positions against positions: the gradient is never formed
        squared_B = ((hidden_BTH @ hidden_BTH.mT) * (gradient_BTK @ gradient_BTK.mT)).sum(dim=(1, 2))
        return squared_B.clamp_min(0.0)  # rounding can leave a small negative number
    return (gradient_BTK.mT @ hidden_BTH).square().sum(dim=(1, 2))


def _over_positions(value: torch.Tensor, num_kept: int) -> torch.Tensor:
    """Squared norm of the sum over the axes between the first and the last `num_kept`."""
    flat_BTK = value.flatten(-num_kept).reshape(len(value), -1, value.shape[-num_kept:].numel())
    return flat_BTK.sum(dim=1).square().sum(dim=1)
