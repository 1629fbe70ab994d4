"""Parameters with gradients for the tests of single rules."""

import torch

SHAPES = ((6, 4), (6,), (3, 2, 2, 2), ())


def parameters_with(gradients):
    made = []
    for seed, gradient in enumerate(gradients):
        generator = torch.Generator().manual_seed(seed)
        parameter = torch.nn.Parameter(torch.randn(gradient.shape, generator=generator).to(gradient.dtype))
        parameter.grad = gradient.clone()
        made.append(parameter)
    return made


def random_gradients(seed, scales=(1.0, 1.0, 1.0, 1.0), shapes=SHAPES):
    generator = torch.Generator().manual_seed(1_000 + seed)
    return [torch.randn(shape, generator=generator) * scale for shape, scale in zip(shapes, scales, strict=True)]


def steps_of(norms):
    """One weight whose gradient has each of these norms in turn."""
    for norm in norms:
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = torch.tensor([0.6, -0.8]) * norm
        yield weight
