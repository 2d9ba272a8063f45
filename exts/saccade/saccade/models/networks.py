"""The two shipped networks as PyTorch modules: a camera encoder-decoder and a LiDAR range-image network.

The modules take and return what the exported ONNX files do; what only training needs (maps that are supervised, but not
shipped) comes from ``forward_training``.
"""

# ruff: noqa: TID253 (training alone imports this module)

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from saccade.errors import ConfigurationError
from saccade.frame import BACKGROUND, CLASS_COUNT, SECTOR_COUNT
from saccade.models.blocks import BLOCKS, CircularConv, SqueezeExcite, normalised

CAMERA_SHAPE = (3, 224, 224)
"""Channels, height [px], width [px] of the camera network's input."""
LIDAR_SHAPE = (2, 32, 1024)
"""Channels (range, intensity), LiDAR channels, columns of the LiDAR network's input."""
PROXIMITY_SIZE = 28
"""Edge of the camera network's grid that feeds the hazard head [cells]; one cell is 8 x 8 pixels."""
RANGE_MAX = 30.0
"""Range at which clearance is capped, and by which the range channel is scaled [m]."""
VERTICAL_FOV = (-45.0, 15.0)
"""Lowest and highest elevation of the shipped LiDAR [degrees]."""

_FOLD = 4  # columns of the range image that share one cell of the network's grid
_PLANES = 7  # what the LiDAR network is told of each return
_VALID = 2  # the plane among them that is 1 where a return came back
_HALO = 56  # cells on either side that no output looks beyond: 50, rounded up to the coarsest cell of 8
_GATE_CLOSED = 60.0  # taken from the gate's logit where no return came back
_ABSENT = -30.0  # logit offset of a class that training never saw, so that one stray pixel cannot become a class


ARCHITECTURES = tuple(BLOCKS)
"""What the networks can be built from; the first is what is shipped."""

# Widths of the stages, and of the decoder from coarse to fine, with which all have about as many parameters.
_CAMERA_WIDTHS = {
    "separable": ((24, 40, 80, 128, 176), (112, 80, 40, 24)),
    "mobilenet": ((16, 24, 40, 56, 64), (56, 40, 24, 16)),
    "efficientnet": ((16, 24, 40, 48, 56), (48, 32, 24, 16)),
    "plain": ((16, 24, 32, 40, 64), (48, 32, 24, 16)),
}
_LIDAR_WIDTHS = {
    "separable": (32, 64, 96, 128),
    "mobilenet": (16, 24, 40, 48),
    "efficientnet": (16, 24, 32, 48),
    "plain": (16, 24, 40, 48),
}


class Fuse(nn.Module):
    """Doubles the coarse features, adds the projected skip connection, and refines the sum."""

    def __init__(self, coarse: int, skip: int, channels_out: int, *, block: Callable[..., nn.Module], depth: int = 1):
        super().__init__()
        self.reduce = normalised(nn.Conv2d(coarse, channels_out, 1, bias=False), activation=False)
        self.skip = normalised(nn.Conv2d(skip, channels_out, 1, bias=False), activation=False)
        self.refine = nn.Sequential(*[block(channels_out, channels_out) for _ in range(depth)])

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Returns features of the skip connection's size."""
        # Nearest neighbour: the refining convolution smooths it, and on a CPU it is far cheaper than bilinear.
        larger = functional.interpolate(self.reduce(coarse), scale_factor=2.0, mode="nearest")
        return self.refine(functional.relu(larger + self.skip(skip)))


class CameraNetwork(nn.Module):
    """Image to label logits and the probability that the walking corridor is not free.

    A separable encoder down to stride 32 with global context, and a decoder up to stride 2 whose logits are resized
    bilinearly. The hazard head reads the stride-8 features through a map of "this cell shows something inside the
    corridor" that training supervises from depth; it therefore knows where things are.
    """

    input_name = "image"
    output_names = ("labels", "hazard")
    input_shape = CAMERA_SHAPE

    def __init__(self, *, architecture: str = "separable"):
        super().__init__()
        block = BLOCKS[architecture]
        (w2, w4, w8, w16, w32), (d16, d8, d4, d2) = _CAMERA_WIDTHS[architecture]
        self.stem = nn.Sequential(normalised(nn.Conv2d(3, 16, 3, 2, 1, bias=False)), block(16, w2))
        self.stage4 = nn.Sequential(block(w2, w4, stride=2), block(w4, w4))
        self.stage8 = nn.Sequential(block(w4, w8, stride=2), *[block(w8, w8) for _ in range(2)])
        self.stage16 = nn.Sequential(block(w8, w16, stride=2), *[block(w16, w16) for _ in range(3)])
        self.stage32 = nn.Sequential(block(w16, w32, stride=2), *[block(w32, w32) for _ in range(2)])
        self.context = nn.Conv2d(w32, w32, 1)
        self.fuse16 = Fuse(w32, w16, d16, block=block)
        self.fuse8 = Fuse(d16, w8, d8, block=block, depth=2)
        self.fuse4 = Fuse(d8, w4, d4, block=block)
        self.fuse2 = Fuse(d4, w2, d2, block=block)
        self.labels = nn.Conv2d(d2, CLASS_COUNT, 1)
        self.proximity = nn.Sequential(block(d8, 48), nn.Conv2d(48, 2, 1))
        self.hazard_features = normalised(nn.Conv2d(d8 + 2, 16, 3, 2, 1, bias=False))
        cells = (PROXIMITY_SIZE // 2) ** 2
        self.hazard = nn.Sequential(
            nn.Linear(16 * cells + 2, 64), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(64, 1)
        )
        self.register_buffer("class_offset", torch.zeros(1, CLASS_COUNT, 1, 1))

    def forward_training(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns what training supervises.

        ``labels``: logits, ``(batch, 6, 224, 224)``. ``hazard``: logit, ``(batch, 1)``. ``proximity``: logit that a
        cell shows something inside the corridor, ``(batch, 28, 28)``. ``nearness``: 1 / (1 + depth [m]) of a cell,
        ``(batch, 28, 28)``.
        """
        x2 = self.stem(image)
        x4 = self.stage4(x2)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        x32 = x32 + self.context(functional.adaptive_avg_pool2d(x32, 1))
        y8 = self.fuse8(self.fuse16(x32, x16), x8)
        y2 = self.fuse2(self.fuse4(y8, x4), x2)
        logits = self.labels(y2) + self.class_offset
        logits = functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        maps = torch.sigmoid(self.proximity(y8))
        grid = self.hazard_features(torch.cat([y8, maps], dim=1))
        mask = maps[:, :1]
        evidence = torch.cat([functional.adaptive_max_pool2d(mask, 1), functional.adaptive_avg_pool2d(mask, 1)], dim=1)
        hazard = self.hazard(torch.cat([grid.flatten(1), evidence.flatten(1)], dim=1))
        return {"labels": logits, "hazard": hazard, "proximity": maps[:, 0], "nearness": maps[:, 1]}

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits ``(batch, 6, 224, 224)`` and probability ``(batch, 1)`` of images ``(batch, 3, 224, 224)``."""
        out = self.forward_training(image)
        return out["labels"], torch.sigmoid(out["hazard"])


class LidarNetwork(nn.Module):
    """Range image to label logits per return and clearance [m] in 16 sectors.

    Four neighbouring columns share a cell (their values become channels), so that the network runs on a 32x256 grid and
    still decides every return by itself; every convolution wraps around in azimuth. Clearance is the soft minimum,
    within a sector, of the horizontal distances of the returns that a learned gate takes for something to bump into.

    Arithmetic on single returns is written on flat arrays, shape ``(batch, values)``: TensorRT tries every pointwise
    kernel in every memory layout that a tensor's dimensions allow and compiles each one, which for images of one
    channel took it minutes.
    """

    input_name = "range_image"
    output_names = ("labels", "clearance")
    input_shape = LIDAR_SHAPE

    def __init__(self, *, architecture: str = "separable", vertical_fov: tuple[float, float] = VERTICAL_FOV):
        super().__init__()
        block = partial(BLOCKS[architecture], circular=True)
        _, rows, columns = LIDAR_SHAPE
        self.rows, self.columns = rows, columns
        self.halo, self.folded = 0, False
        low, high = (math.radians(angle) for angle in vertical_fov)
        elevation = torch.linspace(high, low, rows).repeat_interleave(columns).view(1, rows * columns)
        self.register_buffer("elevation", elevation)
        self.register_buffer("sine", elevation.sin())
        self.register_buffer("cosine", elevation.cos())
        self.register_buffer("class_offset", torch.zeros(1, CLASS_COUNT, 1, 1))
        no_return = torch.zeros(1, CLASS_COUNT, 1, 1)
        no_return[:, BACKGROUND] = -2 * _ABSENT
        self.register_buffer("no_return_offset", no_return)
        w1, w2, w4, w8 = _LIDAR_WIDTHS[architecture]
        self.stem = nn.Sequential(
            normalised(nn.Conv2d(_PLANES * _FOLD, w1, 1, bias=False)), block(w1, w1), block(w1, w1)
        )
        self.stage2 = nn.Sequential(block(w1, w2, stride=2), block(w2, w2))
        self.stage4 = nn.Sequential(block(w2, w4, stride=2), *[block(w4, w4) for _ in range(2)])
        self.stage8 = nn.Sequential(block(w4, w8, stride=2), *[block(w8, w8) for _ in range(3)])
        self.fuse4 = Fuse(w8, w4, w4, block=block)
        self.fuse2 = Fuse(w4, w2, w2, block=block)
        self.fuse1 = Fuse(w2, w1, w1, block=block)
        # Per return: the label logits, the gate's logit and a correction of the distance.
        self.head = nn.Conv2d(w1 + _PLANES * _FOLD, (CLASS_COUNT + 2) * _FOLD, 1)

    @torch.no_grad()
    def prepare_export(self) -> None:
        """Turns it into the same function with fewer operations; for the file, not for training. Twice is once.

        What is added to the logits of returns that did not come back goes into the head, which knows them, and the grid
        is wrapped once (:meth:`wrap_once`).
        """
        if self.folded:
            return
        valid = self.head.in_channels - _PLANES * _FOLD + _VALID * _FOLD
        absent = torch.cat([self.no_return_offset.flatten(), torch.tensor([-_GATE_CLOSED, 0.0])])
        offset = torch.cat([self.class_offset.flatten(), torch.zeros(2)])
        for output, (added, always) in enumerate(zip(absent.tolist(), offset.tolist(), strict=True)):
            for column in range(_FOLD):
                self.head.weight[output * _FOLD + column, valid + column, 0, 0] -= added
                self.head.bias[output * _FOLD + column] += added + always
        self.wrap_once()

    def wrap_once(self) -> None:
        """Takes weights as they are in a file, whose head holds the offsets and whose convolutions do not wrap.

        The grid is wrapped once, by more columns than any output looks at, instead of before every convolution. Where
        something looks at all columns (squeeze-and-excite), it would see those twice: the convolutions go on wrapping.
        """
        self.folded = True
        if any(isinstance(module, SqueezeExcite) for module in self.modules()):
            return
        self.halo = _HALO
        for module in self.modules():
            if isinstance(module, CircularConv):
                module.leave_wrapping()

    def planes(self, range_image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns input planes ``(batch, 7, 32, 1024)``, horizontal distances [m] and the mask of no-returns.

        The last two are flat, ``(batch, 32 * 1024)``.
        """
        count = self.rows * self.columns
        flat = range_image.reshape(-1, 2 * count)
        scaled, intensity = flat[:, :count], flat[:, count:]
        # A range of 0.15 m is 0.005 here; the factor also fits half precision.
        valid = torch.clamp(scaled * 1e3, 0.0, 1.0)
        horizontal = scaled * self.cosine
        # Nearness keeps the resolution that a linear range lacks close by.
        nearness = valid / (scaled * RANGE_MAX + 1.0)
        height = scaled * (self.sine * (RANGE_MAX * 0.5))
        planes = torch.cat(
            [scaled, intensity, valid, nearness, horizontal, height, self.elevation * valid], dim=1
        ).reshape(-1, _PLANES, self.rows, self.columns)
        return planes, horizontal * RANGE_MAX, 1.0 - valid

    def forward_training(self, range_image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns what training supervises.

        ``labels``: logits, ``(batch, 6, 32, 1024)``. ``gate``: logit that a return is something to bump into,
        ``(batch, 32, 1024)``. ``clearance``: ``(batch, 16)`` [m].
        """
        rows, columns = self.rows, self.columns
        count = rows * columns
        planes, horizontal, no_return = self.planes(range_image)
        folded = planes.reshape(-1, _PLANES, rows, columns // _FOLD, _FOLD).permute(0, 1, 4, 2, 3)
        folded = folded.reshape(-1, _PLANES * _FOLD, rows, columns // _FOLD)
        out = self.head(torch.cat([self._features(folded), folded], dim=1))
        out = out.reshape(-1, CLASS_COUNT + 2, _FOLD, rows, columns // _FOLD).permute(0, 1, 3, 4, 2)
        out = out.reshape(-1, (CLASS_COUNT + 2) * count)
        labels = out[:, : CLASS_COUNT * count].reshape(-1, CLASS_COUNT, rows, columns)
        gate, correction = out[:, CLASS_COUNT * count : -count], out[:, -count:]
        near = gate
        if not self.folded:
            labels = labels + self.class_offset + no_return.reshape(-1, 1, rows, columns) * self.no_return_offset
            near = gate - _GATE_CLOSED * no_return
        clearance = self.clearance(horizontal + 0.3 * torch.tanh(correction), near)
        return {"labels": labels, "gate": gate.reshape(-1, rows, columns), "clearance": clearance}

    def _features(self, folded: torch.Tensor) -> torch.Tensor:
        """The network proper on the grid; with a halo, wrapped once and cut again."""
        if self.halo:
            folded = torch.cat([folded[..., -self.halo :], folded, folded[..., : self.halo]], dim=-1)
        x1 = self.stem(folded)
        x2 = self.stage2(x1)
        x4 = self.stage4(x2)
        y1 = self.fuse1(self.fuse2(self.fuse4(self.stage8(x4), x4), x2), x1)
        return y1[..., self.halo : -self.halo] if self.halo else y1

    def clearance(self, distance: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Returns the soft minimum of ``distance`` [m] where ``gate`` is positive, per sector, ``(batch, 16)`` [m].

        Both are flat, ``(batch, 32 * 1024)``.
        """
        width = self.columns // SECTOR_COUNT
        probability = torch.sigmoid(4.0 * gate)
        gated = (RANGE_MAX - probability * (RANGE_MAX - distance)).reshape(-1, self.rows, self.columns)
        # Sector 0 is centred on column 0: half a sector of the last columns comes first.
        gated = torch.cat([gated[..., -width // 2 :], gated[..., : -width // 2]], dim=-1)
        gated = gated.reshape(-1, self.rows, SECTOR_COUNT, width).permute(0, 2, 1, 3).reshape(-1, self.rows * width)
        nearest = gated.amin(dim=1, keepdim=True)
        # Averaging over the nearest 5 cm or so is steadier under range noise than the single nearest return.
        weight = torch.exp((nearest - gated) * 20.0)
        mean = (weight * gated).sum(dim=1) / weight.sum(dim=1)
        return torch.clamp(mean.reshape(-1, SECTOR_COUNT), 0.0, RANGE_MAX)

    def forward(self, range_image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits ``(batch, 6, 32, 1024)`` and clearance ``(batch, 16)`` [m] of range images."""
        out = self.forward_training(range_image)
        return out["labels"], out["clearance"]


def network_from_kind(kind: str, *, architecture: str = "separable") -> CameraNetwork | LidarNetwork:
    """Returns a new network with random weights for ``"camera"`` or ``"lidar"``, of one of :data:`ARCHITECTURES`."""
    if architecture not in ARCHITECTURES:
        raise ConfigurationError(f"architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}")
    return CameraNetwork(architecture=architecture) if kind == "camera" else LidarNetwork(architecture=architecture)


def exclude_absent_classes(network: nn.Module, present: list[bool]) -> None:
    """Pushes down the logits of classes that the training data never shows, so that they are never predicted."""
    offset = torch.tensor([0.0 if there else _ABSENT for there in present]).view(1, -1, 1, 1)
    network.class_offset.copy_(offset)  # type: ignore[operator, union-attr]


def count_parameters(network: nn.Module) -> int:
    """Returns the number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network: nn.Module) -> int:
    """Returns the multiply-adds of convolutions and linear layers for one sample of the network's own input shape."""
    total = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *network.input_shape))  # type: ignore[attr-defined, misc]
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total
