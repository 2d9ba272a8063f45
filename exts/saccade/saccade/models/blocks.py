"""Blocks that the networks are built from, with one signature, so that they can be exchanged for each other."""

# ruff: noqa: TID253 (training alone imports this module)

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

EXPANSION = 4
"""Factor by which an inverted residual is wider inside."""
SQUEEZE = 4
"""Factor by which squeeze-and-excite is narrower than a block's input."""


def normalised(convolution: nn.Conv2d, *, activation: bool | nn.Module = True) -> nn.Sequential:
    """Returns a convolution with its batch normalisation and its activation, ReLU where nothing else is said."""
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(convolution.out_channels, momentum=0.05)]
    if activation:
        layers.append(nn.ReLU(inplace=True) if activation is True else activation)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class CircularConv(nn.Module):
    """A 3x3 convolution that wraps around along the columns, as azimuth does, and pads rows with zeros."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: bool | nn.Module = True,
    ):
        super().__init__()
        self.stride = stride
        self.wraps = True
        self.convolution = normalised(
            nn.Conv2d(channels_in, channels_out, 3, stride, (1, 0), groups=groups, bias=False), activation=activation
        )

    def leave_wrapping(self) -> None:
        """Pads columns with zeros from now on: its input carries the wrapped columns with it."""
        self.wraps = False
        self.convolution[0].padding = (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features, shape ``(batch, channels_out, rows / stride, columns / stride)``."""
        if not self.wraps:
            return self.convolution(x)
        # With stride 2 the last window ends on the last column: only the left side wraps.
        parts = [x[..., -1:], x] if self.stride == 2 else [x[..., -1:], x, x[..., :1]]
        return self.convolution(torch.cat(parts, dim=-1))


def _spatial(
    channels_in: int,
    channels_out: int,
    *,
    stride: int,
    circular: bool,
    groups: int = 1,
    activation: bool | nn.Module = True,
) -> nn.Module:
    """Returns a 3x3 convolution with normalisation; ``circular`` wraps around along the columns."""
    if circular:
        return CircularConv(channels_in, channels_out, stride=stride, groups=groups, activation=activation)
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, groups=groups, bias=False)
    return normalised(convolution, activation=activation)


class SeparableBlock(nn.Module):
    """Depthwise 3x3, then pointwise convolution; a residual where the shapes allow one.

    After Howard et al., MobileNets, 2017.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, circular: bool = False):
        super().__init__()
        self.depthwise = _spatial(channels_in, channels_in, stride=stride, circular=circular, groups=channels_in)
        self.residual = stride == 1 and channels_in == channels_out
        self.pointwise = normalised(nn.Conv2d(channels_in, channels_out, 1, bias=False), activation=not self.residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features, shape ``(batch, channels_out, height / stride, width / stride)``."""
        out = self.pointwise(self.depthwise(x))
        return x + out if self.residual else out


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise 3x3, linear pointwise projection; a residual where the shapes allow one.

    After Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, circular: bool = False):
        super().__init__()
        inner = EXPANSION * channels_in
        self.residual = stride == 1 and channels_in == channels_out
        self.expand = normalised(nn.Conv2d(channels_in, inner, 1, bias=False), activation=nn.ReLU6(inplace=True))
        self.depthwise = _spatial(
            inner, inner, stride=stride, circular=circular, groups=inner, activation=nn.ReLU6(inplace=True)
        )
        self.project = normalised(nn.Conv2d(inner, channels_out, 1, bias=False), activation=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features, shape ``(batch, channels_out, height / stride, width / stride)``."""
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class SqueezeExcite(nn.Module):
    """Weights channels by what is in the whole picture (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018)."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features of the same shape."""
        weight = functional.silu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.expand(weight))


class MobileConv(nn.Module):
    """MBConv: an inverted residual with squeeze-and-excite and SiLU (Tan and Le, EfficientNet, ICML 2019)."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, circular: bool = False):
        super().__init__()
        inner = EXPANSION * channels_in
        self.residual = stride == 1 and channels_in == channels_out
        self.expand = normalised(nn.Conv2d(channels_in, inner, 1, bias=False), activation=nn.SiLU())
        self.depthwise = _spatial(inner, inner, stride=stride, circular=circular, groups=inner, activation=nn.SiLU())
        self.excite = SqueezeExcite(inner, max(4, channels_in // SQUEEZE))
        self.project = normalised(nn.Conv2d(inner, channels_out, 1, bias=False), activation=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features, shape ``(batch, channels_out, height / stride, width / stride)``."""
        out = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + out if self.residual else out


class PlainBlock(nn.Module):
    """One ordinary 3x3 convolution; a residual where the shapes allow one."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, circular: bool = False):
        super().__init__()
        self.residual = stride == 1 and channels_in == channels_out
        self.spatial = _spatial(
            channels_in, channels_out, stride=stride, circular=circular, activation=not self.residual
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns features, shape ``(batch, channels_out, height / stride, width / stride)``."""
        out = self.spatial(x)
        return functional.relu(x + out) if self.residual else out


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "separable": SeparableBlock,
    "mobilenet": InvertedResidual,
    "efficientnet": MobileConv,
    "plain": PlainBlock,
}
"""By the name of the architecture; each takes input and output channels, ``stride`` and ``circular``."""
