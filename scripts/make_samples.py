"""Makes the qualification samples beside the shipped networks: inputs as the embedded simulator gives them.

    python scripts/make_samples.py            writes exts/saccade/saccade/models/*.samples.npz

A rebuilt engine is compared with its FP32 reference on inputs that the network is for. The samples come from a walk
through the corridor, one decision in ten; the same seed gives the same arrays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from saccade.configuration import load_configuration
from saccade.frame import Command
from saccade.network import Network
from saccade.validation.run import simulator_for

COUNT = {"camera": 6, "lidar": 6}
EVERY = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="folder; default: beside each network")
    arguments = parser.parse_args()
    loaded = load_configuration("corridor", device="cpu", engine="onnxruntime")
    networks = {
        name: Network(name, entry, loaded.model_path(name), sensors=loaded.config.sensors, engine=loaded.config.engine)
        for name, entry in loaded.config.networks.items()
    }
    simulator = simulator_for(loaded, print)
    simulator.open(loaded.scene_path())
    kept: dict[str, dict[str, list[np.ndarray]]] = {
        name: {tensor: [] for tensor in network.config.inputs} for name, network in networks.items()
    }
    decision = 0
    while any(len(rows) < COUNT[name] for name, tensors in kept.items() for rows in tensors.values()):
        frames = {frame.sensor: frame for frame in simulator.sense()}
        if frames:
            if decision % EVERY == 0:
                for name, network in networks.items():
                    for tensor, rows in kept[name].items():
                        if len(rows) < COUNT[name]:
                            network.input_work(tensor, frames).run()
                            rows.append(network.input_array(tensor).numpy()[0].astype(np.float16))
            decision += 1
        simulator.step(Command(linear_x=0.7))
    simulator.close()
    for name, tensors in kept.items():
        model = loaded.model_path(name)
        path = (arguments.out or model.parent) / f"{model.stem}.samples.npz"
        np.savez_compressed(path, **{tensor: np.stack(rows) for tensor, rows in tensors.items()})
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
