"""Where the work runs: the device, its name as the tables record it, and what makes a run repeatable on it."""

import platform
from pathlib import Path

import torch

from scatterproof.errors import UserError


class DeviceError(UserError):
    """The device asked for is not there."""


def choose_device(wanted: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a torch device. Raises: DeviceError where CUDA is asked for and missing."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError("run.device is 'cuda', but torch sees no CUDA device on this node")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """`cuda: <GPU>` or `cpu: <processor>`."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {_processor()}"


def gpu_uuid(device: torch.device) -> str | None:
    """The driver's name of a GPU, whatever number it has here; None of a cpu, or where torch does not tell."""
    if device.type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def set_up(device: torch.device, threads: int) -> None:
    """Fix thread count and algorithms, so that a repeated run is bit-identical on the same device."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 has hardware support, so that mixed precision pays."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
