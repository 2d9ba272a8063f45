"""Training of the shipped networks: ``train("camera", output=...)`` renders, trains, scores, exports and writes the
card.

``python -m saccade.models.training --kind camera --cache DIR --output DIR`` does the same from a rendered dataset,
and then needs NumPy, Pillow, PyTorch and ONNX only.
"""

# ruff: noqa: TID253 (training alone imports this module)

from __future__ import annotations

import argparse
import copy
import math
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from saccade.errors import ConfigurationError, ModelError
from saccade.frame import CLASS_COUNT, CLASSES
from saccade.models import augmentation, dataset, scores
from saccade.models.card import goals_met, write_card
from saccade.models.export import OPSET, export_network
from saccade.models.networks import (
    ARCHITECTURES,
    count_multiply_adds,
    count_parameters,
    exclude_absent_classes,
    network_from_kind,
)
from saccade.models.progress import Report, console_report, silent

Kind = Literal["camera", "lidar"]

RECALL = 0.97
"""Hazard recall on the validation layouts for which the threshold is chosen."""

_BATCHES = {"camera": augmentation.camera_batch, "lidar": augmentation.lidar_batch}
_LOSSES = {"camera": augmentation.camera_loss, "lidar": augmentation.lidar_loss}
_RATES = {"camera": 3e-3, "lidar": 3e-3}
_AUGMENTATION = {
    "camera": "Augmented with light, contrast, gamma and colour jitter, shot and read noise, and mirroring.",
    "lidar": "Augmented with turns in azimuth, mirroring, range noise, dropout and intensity gain.",
}


@dataclass(frozen=True)
class TrainingResult:
    """What a training produced."""

    kind: str
    model: Path
    """ONNX file with batch 1."""
    model_dynamic: Path
    """The same weights with an open batch size."""
    card: Path
    """Model card (JSON); a readable one lies beside it."""
    scores: dict[str, Any]
    """``validation`` and ``test`` scores."""
    goals: list[dict[str, Any]]
    """Each goal with its value and whether it is met."""
    minutes: dict[str, float] = field(default_factory=dict)
    """Wall time of rendering and of training [min]."""


def train(
    kind: Kind,
    *,
    output: Path,
    data_seed: int = 0,
    scenes: int = dataset.SCENES["train"],
    poses: int = dataset.POSES,
    epochs: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: Path | None = None,
    time_limit_minutes: float = 40.0,
    architecture: str = "separable",
    note: str = "",
    progress: bool = True,
) -> TrainingResult:
    """Renders the dataset where it is missing, trains, scores on held-out layouts, exports and writes the card.

    Args:
        kind: ``"camera"`` or ``"lidar"``.
        output: Folder of ``<kind>.onnx``, ``<kind>_dynamic.onnx`` and ``<kind>.card.*``.
        data_seed: Chooses other layouts.
        scenes: Training layouts; validation and test layouts are a fixed share more.
        poses: Samples per layout.
        epochs: Passes over the training data, fewer when the time runs out; ``None`` = 24 on a CPU, 80 on a GPU.
        batch: Samples per step; ``None`` = 16 on a CPU, 32 on a GPU.
        seed: Of weights, order and augmentation.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        cache: Folder of a rendered dataset, or where datasets are kept; ``None`` = the user's cache folder.
        time_limit_minutes: Wall time for rendering and training together [min]; the learning rate ends in time.
        architecture: What the network is built from, one of :data:`saccade.models.networks.ARCHITECTURES`.
        note: A sentence for the card.
        progress: Draw progress bars on stderr.

    Raises:
        ConfigurationError: An option is wrong.
        DependencyError: The simulator is needed for rendering and not installed.
        ModelError: The loss left the finite numbers, or the export differs from PyTorch.
        KeyboardInterrupt: Interrupted; rendered scenes are kept, no partial file is left.
    """
    if kind not in _BATCHES:
        raise ConfigurationError(f"kind {kind!r}: there is no such network; choose 'camera' or 'lidar'")
    began = time.monotonic()
    place = device_from_name(device)
    with console_report() if progress else _quiet() as report:
        data = dataset.ensure_dataset(kind, cache=cache, data_seed=data_seed, scenes=scenes, poses=poses, report=report)
        rendered = time.monotonic()
        parts = {part: tensors_from(dataset.load_part(data, kind, part), place) for part in dataset.PARTS}
        network = network_from_kind_seeded(kind, seed, architecture=architecture).to(place)
        # Scoring and export take their share of the time, too.
        limit = max(30.0, time_limit_minutes * 60 - (rendered - began) - 60)
        run = Run(kind, network, parts, place, seed=seed, limit=limit)
        on_gpu = place.type == "cuda"
        curves = run.fit(epochs=epochs or (80 if on_gpu else 24), batch=batch or (32 if on_gpu else 16), report=report)
    trained = time.monotonic()
    minutes = {"render": (rendered - began) / 60, "train": (trained - rendered) / 60}
    card = run.card(data, curves, minutes, note=note, data_seed=data_seed)
    output = Path(output)
    metadata = {"kind": kind, "data_seed": str(data_seed), "seed": str(seed), "architecture": architecture}
    # Exports first: a card never describes files that are not there.
    model = export_network(run.average, output / f"{kind}.onnx", metadata=metadata)
    dynamic = export_network(run.average, output / f"{kind}_dynamic.onnx", dynamic_batch=True, metadata=metadata)
    written = write_card(card, output)
    return TrainingResult(kind, model, dynamic, written[0], card["scores"], card["goals"], minutes)


def _quiet() -> Any:
    import contextlib

    return contextlib.nullcontext(silent)


def device_from_name(name: str) -> torch.device:
    """Returns the device that ``"auto"``, ``"cpu"`` or ``"cuda"`` means here.

    Raises:
        ConfigurationError: PyTorch has no usable GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {name!r}: PyTorch finds no usable GPU; take cpu or auto, or install a CUDA build of torch"
        )
    return torch.device(name)


def network_from_kind_seeded(kind: str, seed: int, *, architecture: str = "separable") -> nn.Module:
    """Returns a new network whose weights depend on ``seed`` alone."""
    torch.manual_seed(seed)
    return network_from_kind(kind, architecture=architecture)


def tensors_from(arrays: dict[str, np.ndarray], place: torch.device) -> augmentation.Tensors:
    """Returns arrays as tensors on a device."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(place) for name, array in arrays.items()}


class Run:
    """One training run: the network, its running average, and the data on the device."""

    def __init__(
        self, kind: str, network: nn.Module, parts: dict[str, Any], place: torch.device, *, seed: int, limit: float
    ):
        self.kind, self.network, self.parts, self.place, self.seed, self.limit = (
            kind,
            network,
            parts,
            place,
            seed,
            limit,
        )
        self.counts = torch.bincount(self._scored_labels("train"), minlength=CLASS_COUNT)
        self.weights = augmentation.class_weights(self.counts).to(place)
        exclude_absent_classes(network, [bool(count) for count in self.counts])
        if place.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if place.type == "cuda" or kind == "camera":
            network.to(memory_format=torch.channels_last)
        self.masks: dict[str, torch.Tensor] = {}
        """Where given, by name of the parameter: which weights may differ from zero."""
        self.average = copy.deepcopy(network).eval()
        self.setup: dict[str, Any] = {}

    def _scored_labels(self, part: str) -> torch.Tensor:
        samples = self.parts[part]
        labels = samples["labels"] if self.kind == "camera" else samples["labels"][samples["ranges"] > 0]
        return labels.flatten().to(torch.int32)

    def fit(
        self, *, epochs: int, batch: int, report: Report, rate: float | None = None
    ) -> dict[str, list[dict[str, float]]]:
        """Trains and returns the curves; ``rate`` is the peak of the learning rate, ``None`` = that of new networks."""
        samples = self.parts["train"]
        count = len(samples["labels"])
        batch = min(batch, count)
        steps = max(count // batch, 1)
        total = steps * epochs
        order = np.random.default_rng(self.seed)
        noise = torch.Generator(device=self.place).manual_seed(self.seed + 1)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        peak = rate or _RATES[self.kind]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
            lr=peak,
            fused=self.place.type == "cuda",
        )
        curves: dict[str, list[dict[str, float]]] = {"train": [], "validation": []}
        began, step, every, finished = time.monotonic(), 0, max(1, epochs // 12), 0
        for epoch in range(1, epochs + 1):
            losses = []
            for chosen in np.array_split(order.permutation(count)[: steps * batch], steps):
                # Whichever is further decides: the plan, or the clock on a machine that is slower than planned.
                done = max(step / total, (time.monotonic() - began) / self.limit)
                if done >= 1:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = peak * _schedule(done)
                losses.append(self._step(samples, chosen, optimizer, noise))
                step += 1
                self._follow(step)
                if self.place.type == "cpu" and step % 10 == 0:
                    report("epochs", epoch - 1, epochs, f"step {step}/{total} loss {float(losses[-1]):.3f}")
            if not losses:
                break
            finished = epoch
            loss = float(torch.stack(losses).mean())
            if not math.isfinite(loss):
                raise ModelError(
                    f"{self.kind}: the training loss became {loss} in epoch {epoch}: nothing is kept; try another seed"
                )
            curves["train"].append({"epoch": epoch, "loss": loss})
            if epoch % every == 0:
                curves["validation"].append({"epoch": epoch, **self._headline(self.evaluate("validation")[0])})
            shown = (
                {k: round(v, 3) for k, v in curves["validation"][-1].items() if k != "epoch"}
                if curves["validation"]
                else {}
            )
            report("epochs", epoch, epochs, f"loss {loss:.3f} " + " ".join(f"{k} {v}" for k, v in shown.items()))
        if not curves["validation"] or curves["validation"][-1]["epoch"] != finished:
            curves["validation"].append({"epoch": finished, **self._headline(self.evaluate("validation")[0])})
        self.setup = {
            "epochs": finished,
            "steps": step,
            "batch": batch,
            "seed": self.seed,
            "optimizer": f"AdamW, cosine learning rate with peak {peak:g}, averaged weights",
            "precision": "bfloat16" if self.place.type == "cuda" else "float32",
            "device": torch.cuda.get_device_name(self.place)
            if self.place.type == "cuda"
            else f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "augmentation": _AUGMENTATION[self.kind],
        }
        return curves

    def _step(
        self, samples: Any, chosen: np.ndarray, optimizer: torch.optim.Optimizer, noise: torch.Generator
    ) -> torch.Tensor:
        index = torch.from_numpy(chosen).to(self.place)
        batch = _BATCHES[self.kind]({name: array[index] for name, array in samples.items()}, noise, augment=True)
        self.network.train()
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.place.type == "cuda"):
            out = self.network.forward_training(self._laid_out(batch["input"]))  # type: ignore[operator]
            loss = _LOSSES[self.kind](out, batch, self.weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        optimizer.step()
        if self.masks:
            with torch.no_grad():
                for name, parameter in self.network.named_parameters():
                    if name in self.masks:
                        parameter.mul_(self.masks[name])
        return loss.detach()

    def _laid_out(self, image: torch.Tensor) -> torch.Tensor:
        if self.place.type == "cuda" or self.kind == "camera":
            return image.contiguous(memory_format=torch.channels_last)
        return image

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Moves the averaged network towards the current one; what it learned first is soon forgotten."""
        weight = 1 - min(0.998, (1 + step) / (20 + step))
        average, current = self.average.state_dict(), self.network.state_dict()
        floats = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[n] for n in floats], [current[n] for n in floats], weight)

    @torch.no_grad()
    def evaluate(
        self, part: str, *, noise: bool = True, threshold: float = 0.5
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns the averaged network's scores on a part, and the hazard truth and probabilities."""
        samples = self.parts[part]
        generator = torch.Generator(device=self.place).manual_seed(7)
        confusion = np.zeros((CLASS_COUNT, CLASS_COUNT), dtype=np.int64)
        truth, said = [], []
        count = len(samples["labels"])
        for start in range(0, count, 32):
            batch = _BATCHES[self.kind](
                {name: array[start : start + 32] for name, array in samples.items()},
                generator,
                augment=False,
                noise=noise,
            )
            logits, other = self.average(self._laid_out(batch["input"]))
            cells = batch["labels"] * CLASS_COUNT + logits.argmax(dim=1)
            cells = cells.flatten() if self.kind == "camera" else cells[batch["valid"]]
            confusion += torch.bincount(cells, minlength=CLASS_COUNT**2).reshape(CLASS_COUNT, CLASS_COUNT).cpu().numpy()
            truth.append(batch["hazard" if self.kind == "camera" else "clearance"].cpu().numpy())
            said.append(other.float().cpu().numpy())
        values = {"truth": np.concatenate(truth), "said": np.concatenate(said)}
        result: dict[str, Any] = {
            "samples": count,
            "miou": scores.mean_iou(confusion),
            "iou": scores.intersection_over_union(confusion),
        }
        result["share"] = dict(zip(CLASSES, (confusion.sum(axis=1) / max(confusion.sum(), 1)).tolist(), strict=True))
        result["accuracy"] = float(np.trace(confusion) / max(confusion.sum(), 1))
        if self.kind == "camera":
            result["hazard"] = scores.hazard_scores(
                values["truth"][:, 0] > 0.5, values["said"][:, 0], threshold=threshold
            )
        else:
            result["clearance"] = scores.clearance_scores(values["truth"], values["said"])
        return result, values

    def _headline(self, result: dict[str, Any]) -> dict[str, float]:
        line = {"miou": result["miou"] or 0.0}
        if self.kind == "camera":
            line["hazard_auroc"] = result["hazard"]["auroc"] or 0.0
        else:
            line["clearance_median_m"] = result["clearance"]["median_m"]
            line["clearance_mean_m"] = result["clearance"]["mean_m"]
        return line

    def card(
        self, data: Path, curves: dict[str, Any], minutes: dict[str, float], *, note: str, data_seed: int
    ) -> dict[str, Any]:
        """Returns the model card, scored on the held-out layouts."""
        threshold = 0.5
        if self.kind == "camera":
            _, values = self.evaluate("validation")
            threshold = scores.threshold_from_recall(values["truth"][:, 0] > 0.5, values["said"][:, 0], recall=RECALL)
        test = self.evaluate("test", threshold=threshold)[0]
        result = {
            "validation": self.evaluate("validation", threshold=threshold)[0],
            "test": test,
            "test_clean": self.evaluate("test", noise=False, threshold=threshold)[0],
        }
        cpu = copy.deepcopy(self.average).cpu()
        manifest = dataset.read_manifest(data)
        return {
            "schema": 1,
            "kind": self.kind,
            "summary": _SUMMARIES[self.kind],
            "note": note,
            "classes": list(CLASSES),
            "hazard_threshold": threshold if self.kind == "camera" else None,
            "goals": goals_met(self.kind, test),
            "scores": result,
            "network": {
                "description": " ".join((type(cpu).__doc__ or "").split("\n\n")[-1].split()),
                "parameters": count_parameters(cpu),
                "multiply_adds": count_multiply_adds(cpu),
                "opset": OPSET,
                "tensors": _TENSORS[self.kind],
            },
            "data": {
                **{k: manifest[k] for k in ("renderer", "generator", "data_seed", "versions")},
                "sensor": manifest["sensors"][self.kind],
                "render_minutes": manifest.get("minutes"),
                "test_noise": augmentation.SCORING_NOISE[self.kind],
                **{part: self._part(part, manifest) for part in dataset.PARTS},
            },
            "training": {**self.setup, "minutes": minutes["train"]},
            "curves": curves,
        }

    def _part(self, part: str, manifest: dict[str, Any]) -> dict[str, Any]:
        samples, seeds = self.parts[part], manifest["seeds"][part]
        row = {
            "scenes": len(seeds),
            "first_seed": min(seeds),
            "last_seed": max(seeds),
            "samples": len(samples["labels"]),
        }
        if self.kind == "camera":
            row["hazard_share"] = float(samples["hazard"].float().mean())
        else:
            row["returns"] = int((samples["ranges"] > 0).sum())
        return row


def _schedule(done: float) -> float:
    """Returns the learning rate's share of its peak: a short rise, then a cosine down to nearly nothing."""
    if done < 0.06:
        return 0.05 + 0.95 * done / 0.06
    return 0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * (done - 0.06) / 0.94))


_SUMMARIES = {
    "camera": "What a head camera sees: a class per pixel, and the probability that the walking corridor (0.8 m "
    "wide, 1.5 m "
    "long) is not free.",
    "lidar": "What a head LiDAR sees: a class per return, and the clearance in 16 sectors around the robot.",
}

_TENSORS: dict[str, list[dict[str, Any]]] = {
    "camera": [
        {
            "name": "image",
            "role": "input",
            "shape": [1, 3, 224, 224],
            "meaning": "RGB 0..1, minus mean (0.485, 0.456, 0.406), over std (0.229, 0.224, 0.225)",
        },
        {"name": "labels", "role": "output", "shape": [1, 6, 224, 224], "meaning": "logits of " + ", ".join(CLASSES)},
        {"name": "hazard", "role": "output", "shape": [1, 1], "meaning": "probability, 0..1"},
    ],
    "lidar": [
        {
            "name": "range_image",
            "role": "input",
            "shape": [1, 2, 32, 1024],
            "meaning": "range / 30 m (0 = no return) and intensity 0..1; column 0 straight ahead, "
            "counter-clockwise; channel 0 highest",
        },
        {"name": "labels", "role": "output", "shape": [1, 6, 32, 1024], "meaning": "logits of " + ", ".join(CLASSES)},
        {
            "name": "clearance",
            "role": "output",
            "shape": [1, 16],
            "meaning": "metres, sector 0 straight ahead, counter-clockwise, at most 30",
        },
    ],
}


def main(arguments: list[str] | None = None) -> None:
    """Trains one network from the command line."""
    parser = argparse.ArgumentParser(description="Trains one of the shipped networks.")
    parser.add_argument("--kind", choices=sorted(_BATCHES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the ONNX files and the card")
    parser.add_argument(
        "--cache", type=Path, default=None, help="a rendered dataset, or the folder that keeps datasets"
    )
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=dataset.SCENES["train"])
    parser.add_argument("--poses", type=int, default=dataset.POSES)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time-limit", type=float, default=40.0, help="minutes for rendering and training together")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--note", default="")
    options = vars(parser.parse_args(arguments))
    options["time_limit_minutes"] = options.pop("time_limit")
    result = train(**options)
    for goal in result.goals:
        print(
            f"{goal['title']}: {goal['value']:.4f} (goal {goal['comparison']} {goal['limit']:g}, "
            f"{'met' if goal['met'] else 'MISSED'})"
        )
    print(result.model)


if __name__ == "__main__":
    main()
