from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from saccade.models import augmentation, dataset  # noqa: E402


def part(folder, kind):
    return {name: torch.from_numpy(array) for name, array in dataset.load_part(folder, kind, "train").items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_scoring_batches_keep_the_truth(drawn_dataset):
    samples = part(drawn_dataset, "camera")
    batch = augmentation.camera_batch(samples, generator(), augment=False, noise=False)
    assert torch.equal(batch["labels"], samples["labels"].long())
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (augmentation.IMAGE_MEAN, augmentation.IMAGE_STD))
    pixels = (batch["input"] * std + mean) * 255
    assert (pixels - samples["images"].permute(0, 3, 1, 2)).abs().max() < 0.51


def test_a_mirrored_picture_has_mirrored_labels(drawn_dataset):
    """The person is red and the floor gray, whatever the jitter: redness follows the labels through every batch."""
    samples = part(drawn_dataset, "camera")
    mirrored = 0
    for seed in range(6):
        batch = augmentation.camera_batch(samples, generator(seed), augment=True)
        image = batch["input"] * torch.tensor(augmentation.IMAGE_STD).view(1, 3, 1, 1)
        redness = image[:, 0] - image[:, 1]
        for i in range(len(image)):
            person = batch["labels"][i] == 3
            if person.any():
                floor = batch["labels"][i] == 0
                assert redness[i][person].mean() > redness[i][floor].mean() + 0.05
                assert (batch["proximity"][i] > 0).sum() == samples["proximity"][i].sum()
                mirrored += int(not torch.equal(batch["labels"][i], samples["labels"][i].long()))
        assert torch.equal(batch["hazard"][:, 0] > 0.5, samples["hazard"])
    assert mirrored > 3


def test_clearance_from_returns_is_the_stored_truth(drawn_dataset):
    samples = part(drawn_dataset, "lidar")
    found = augmentation.clearance_from_returns(samples["ranges"], samples["gate"].float())
    torch.testing.assert_close(found, samples["clearance"], atol=2e-3, rtol=0)


def test_turned_scans_keep_labels_ranges_and_clearance_together(drawn_dataset):
    samples = part(drawn_dataset, "lidar")
    different = 0
    for seed in range(4):
        batch = augmentation.lidar_batch(samples, generator(seed), augment=True)
        ranges = batch["input"][:, 0] * 30
        # Something that is no floor is at 8 m at most here, and the nearest of it is the clearance.
        gated = (batch["gate"] > 0.5) & batch["valid"]
        found = augmentation.clearance_from_returns(ranges, gated.float())
        assert (found - batch["clearance"]).abs().median() < 0.12  # range noise of up to 3 cm, and its minimum
        assert torch.equal(batch["labels"][batch["valid"]] != 0, batch["gate"][batch["valid"]] > 0.5)
        # Turning and mirroring change the order of the sectors, not what is in them all together.
        assert batch["clearance"].amin(dim=1) == pytest.approx(samples["clearance"].amin(dim=1), abs=2e-3)
        different += int(not torch.equal(batch["labels"], samples["labels"].long()))
    assert different == 4


def test_mirroring_reverses_the_sectors(drawn_dataset):
    samples = part(drawn_dataset, "lidar")
    index = (-torch.arange(1024)) % 1024
    mirrored = augmentation.clearance_from_returns(samples["ranges"][..., index], samples["gate"][..., index].float())
    reversed_sectors = samples["clearance"][:, (-np.arange(16)) % 16]
    # Sector limits fall between columns -33 and -32, and 31 and 32: mirrored they differ by one column.
    assert ((mirrored - reversed_sectors).abs() < 2e-3).float().mean() > 0.9


def test_dropped_returns_are_not_scored(drawn_dataset):
    batch = augmentation.lidar_batch(part(drawn_dataset, "lidar"), generator(1), augment=False)
    lost = batch["input"][:, 0] == 0
    assert 0.002 < lost.float().mean() < 0.05
    assert torch.equal(lost, ~batch["valid"])


def test_overlap_loss_of_a_perfect_and_a_wrong_answer():
    labels = torch.tensor([[[0, 1], [2, 2]]])
    right = torch.nn.functional.one_hot(labels, 6).movedim(-1, 1).float() * 40
    assert augmentation.overlap_loss(right, labels).item() == pytest.approx(0.0, abs=1e-4)
    assert augmentation.overlap_loss(right.roll(1, dims=1), labels).item() > 0.5


def test_class_weights_favour_what_is_rare_and_ignore_what_is_absent():
    weights = augmentation.class_weights(torch.tensor([1000, 100, 1, 0, 0, 10]))
    assert weights[0] < weights[1] < weights[5] <= weights[2]
    assert weights[3] == weights[4] == 0
