"""Batches from stored samples: sensor noise, jitter, mirroring and turning, and the losses that training minimises."""

# ruff: noqa: TID253 (training alone imports this module)

from __future__ import annotations

import math

import torch
from torch.nn import functional

from saccade.frame import CLASS_COUNT, SECTOR_COUNT
from saccade.models.dataset import IMAGE_MEAN, IMAGE_STD, SCORING_NOISE
from saccade.models.networks import RANGE_MAX, VERTICAL_FOV

Tensors = dict[str, torch.Tensor]


def image_noise(
    image: torch.Tensor, *, shot: torch.Tensor | float, read: torch.Tensor | float, generator: torch.Generator
) -> torch.Tensor:
    """Returns an image with shot and read noise [8-bit counts], rounded and clipped like a sensor's, 0..1."""
    spread = torch.sqrt(image.clamp(min=0.0) * torch.as_tensor(shot) ** 2 + torch.as_tensor(read) ** 2) / 255.0
    noisy = image + spread * torch.randn(image.shape, generator=generator, device=image.device)
    return (noisy.clamp(0.0, 1.0) * 255.0).round() / 255.0


def normalised_image(image: torch.Tensor) -> torch.Tensor:
    """Returns the network input from RGB 0..1, shape ``(batch, 3, height, width)``."""
    mean = torch.tensor(IMAGE_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=image.device).view(1, 3, 1, 1)
    return (image - mean) / std


def camera_batch(samples: Tensors, generator: torch.Generator, *, augment: bool, noise: bool = True) -> Tensors:
    """Turns stored camera samples into network input and targets.

    Args:
        samples: ``images`` uint8 ``(batch, 224, 224, 3)``, ``labels`` uint8 ``(batch, 224, 224)``, ``proximity`` bool
            and ``nearness`` uint8 ``(batch, 28, 28)``, ``hazard`` bool ``(batch,)``.
        generator: Source of all randomness, on the samples' device.
        augment: Random light, colour, noise and mirroring; otherwise the scoring noise.
        noise: ``False`` leaves the scoring noise out.

    Returns:
        ``input``, ``labels`` int64, ``proximity``, ``nearness`` and ``hazard`` float.
    """
    device = samples["images"].device
    image = samples["images"].permute(0, 3, 1, 2).float() / 255.0
    labels, proximity, nearness = (
        samples["labels"].long(),
        samples["proximity"].float(),
        samples["nearness"].float() / 255.0,
    )
    count = len(image)

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return low + (high - low) * torch.rand((count, channels, 1, 1), generator=generator, device=device)

    if augment:
        mirrored = uniform(0, 1) < 0.5
        image = torch.where(mirrored, image.flip(-1), image)
        labels, proximity, nearness = (
            torch.where(mirrored[:, 0], map_.flip(-1), map_) for map_ in (labels, proximity, nearness)
        )
        image = image * torch.exp(uniform(-0.45, 0.4)) * torch.exp(uniform(-0.08, 0.08, 3))
        image = image.clamp(1e-4, 1.0) ** torch.exp(uniform(-0.25, 0.25))
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        image = mean + (image - mean) * torch.exp(uniform(-0.25, 0.2))
        gray = image.mean(dim=1, keepdim=True)
        image = gray + (image - gray) * uniform(0.6, 1.3)
        image = image_noise(image, shot=uniform(0, 5), read=uniform(0, 4), generator=generator)
    elif noise:
        image = image_noise(image, **SCORING_NOISE["camera"], generator=generator)
    hazard = samples["hazard"].float().unsqueeze(1)
    return {
        "input": normalised_image(image),
        "labels": labels,
        "proximity": proximity,
        "nearness": nearness,
        "hazard": hazard,
    }


def lidar_batch(samples: Tensors, generator: torch.Generator, *, augment: bool, noise: bool = True) -> Tensors:
    """Turns stored LiDAR samples into network input and targets.

    Args:
        samples: ``ranges`` [m] float32, 0 = no return, ``intensity`` uint8, ``labels`` uint8 and ``gate`` bool
            (something to bump into), each ``(batch, 32, 1024)``, ``clearance`` [m] ``(batch, 16)``; all without noise.
        generator: Source of all randomness, on the samples' device.
        augment: Random turning in azimuth, mirroring, range noise, dropout and gain; otherwise the scoring noise.
        noise: ``False`` leaves the scoring noise out.

    Returns:
        ``input``, ``labels`` int64, ``valid`` (returns that are scored), ``gate`` float, ``clearance`` [m].
    """
    ranges, intensity = samples["ranges"], samples["intensity"].float() / 255.0
    labels, gate, clearance = samples["labels"].long(), samples["gate"].float(), samples["clearance"]
    count, device, columns = len(ranges), ranges.device, ranges.shape[-1]

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand((count, 1, 1), generator=generator, device=device)

    if augment:
        index = torch.arange(columns, device=device).view(1, 1, -1)
        index = torch.where(uniform(0, 1) < 0.5, -index, index)
        turned = ((index + (uniform(0, 1) * columns).long()) % columns).expand(ranges.shape)
        ranges, intensity, labels, gate = (map_.gather(-1, turned) for map_ in (ranges, intensity, labels, gate))
        clearance = clearance_from_returns(ranges, gate)
        intensity = intensity * uniform(0.7, 1.3) + 0.02 * torch.randn(ranges.shape, generator=generator, device=device)
        spread, lost = uniform(0, 0.03), uniform(-0.03, 0.08).clamp(min=0.0)
    else:
        spread = SCORING_NOISE["lidar"]["range_std"] if noise else 0.0
        lost = SCORING_NOISE["lidar"]["dropout"] if noise else 0.0
    kept = (ranges > 0) & (torch.rand(ranges.shape, generator=generator, device=device) >= lost)
    noisy = ranges + spread * torch.randn(ranges.shape, generator=generator, device=device)
    seen = torch.where(kept, noisy.clamp(min=0.05), 0.0)
    image = torch.stack([seen / RANGE_MAX, torch.where(kept, intensity.clamp(0.0, 1.0), 0.0)], dim=1)
    return {"input": image, "labels": labels, "valid": kept, "gate": gate, "clearance": clearance}


def clearance_from_returns(ranges: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Returns the least horizontal distance [m] of gated returns per sector, ``(batch, 16)``; 30 without any."""
    rows, columns = ranges.shape[-2:]
    low, high = (math.radians(angle) for angle in VERTICAL_FOV)
    cosine = torch.linspace(high, low, rows, device=ranges.device).cos().view(1, rows, 1)
    distance = torch.where((gate > 0.5) & (ranges > 0), ranges * cosine, RANGE_MAX)
    width = columns // SECTOR_COUNT
    nearest = distance.amin(dim=1).roll(width // 2, dims=-1).reshape(-1, SECTOR_COUNT, width).amin(dim=-1)
    return nearest.clamp(max=RANGE_MAX)


def class_weights(counts: torch.Tensor) -> torch.Tensor:
    """Returns weights that grow with the rarity of a class (square root), 0 for absent ones, shape ``(6,)``."""
    share = counts.double() / counts.sum()
    weights = torch.where(share > 0, share.clamp(min=1e-5) ** -0.5, 0.0)
    weights = weights / (weights * share).sum()
    return weights.clamp(max=6.0).float()


def overlap_loss(logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Returns 1 - soft IoU, pooled over the batch, averaged over the classes that occur in its truth."""
    probability = torch.softmax(logits.float(), dim=1)
    truth = functional.one_hot(labels, CLASS_COUNT).movedim(-1, 1).to(probability.dtype)
    if valid is not None:
        probability, truth = probability * valid.unsqueeze(1), truth * valid.unsqueeze(1)
    axes = (0, *range(2, logits.ndim))
    both = (probability * truth).sum(axes)
    either = probability.sum(axes) + truth.sum(axes) - both
    present = truth.sum(axes) > 0
    return ((1 - (both + 1) / (either + 1)) * present).sum() / present.sum().clamp(min=1)


def camera_loss(out: Tensors, batch: Tensors, weights: torch.Tensor) -> torch.Tensor:
    """Returns the loss of :meth:`CameraNetwork.forward_training`'s maps against the targets of :func:`camera_batch`."""
    labels = functional.cross_entropy(out["labels"].float(), batch["labels"], weight=weights)
    overlap = overlap_loss(out["labels"], batch["labels"])
    hazard = functional.binary_cross_entropy_with_logits(out["hazard"].float(), batch["hazard"] * 0.96 + 0.02)
    proximity = out["proximity"].float().clamp(1e-5, 1 - 1e-5)
    near = -(5.0 * batch["proximity"] * proximity.log() + (1 - batch["proximity"]) * (1 - proximity).log()).mean()
    depth = (out["nearness"].float() - batch["nearness"]).abs().mean()
    return labels + 0.5 * overlap + 0.6 * hazard + near + 2.0 * depth


def lidar_loss(out: Tensors, batch: Tensors, weights: torch.Tensor) -> torch.Tensor:
    """Returns the loss of :meth:`LidarNetwork.forward_training`'s maps against the targets of :func:`lidar_batch`."""
    valid = batch["valid"]
    total = valid.sum().clamp(min=1)
    entropy = functional.cross_entropy(out["labels"].float(), batch["labels"], weight=weights, reduction="none")
    labels = (entropy * valid).sum() / total
    overlap = overlap_loss(out["labels"], batch["labels"], valid)
    gate = functional.binary_cross_entropy_with_logits(out["gate"].float(), batch["gate"], reduction="none")
    # Relative error: 10 cm matter at half a metre, not at twenty.
    error = torch.log1p(out["clearance"].float()) - torch.log1p(batch["clearance"])
    clearance = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.03)
    return labels + 0.5 * overlap + 1.5 * (gate * valid).sum() / total + clearance
