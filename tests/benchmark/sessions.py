"""Sessions of the benchmark for tests: on the CPU, with few rounds."""

from saccade.benchmark.measure import TimeLimit
from saccade.benchmark.session import Session
from saccade.config import EngineConfig
from saccade.configuration import load_configuration


class CpuAsGpu(Session):
    """Goes the ways of the GPU with networks on ONNX Runtime."""

    @property
    def stream(self):
        return None

    def engine(self, precision):
        return EngineConfig(backend="onnxruntime")


def session_for(kind=Session, *, tensorrt=None, rounds=6, frames=20, **options):
    return kind(
        loaded=load_configuration("warehouse", device="cpu"),
        device="cpu",
        tensorrt=tensorrt,
        rounds=rounds,
        limit=TimeLimit(120),
        say=lambda text: None,
        frames=frames,
        first_frame=False,
        **options,
    )
