"""What the machine can do: device, precision, attention kernel."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from mlkd.machine.onednn import use_onednn
from mlkd.output.errors import UserError


def device_of(accelerator: str) -> torch.device:
    """The device that ``trainer.accelerator`` means on this machine.

    Raises:
        UserError: A GPU is asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("accelerator=gpu: torch finds no GPU; allowed here: auto, cpu")
    if accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    return torch.device("cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` asks whether the hardware multiplies bf16 matrices.

    CPUs with AMX do so about five times as fast as they multiply fp32, those with AVX512-BF16 two
    to four times; all others emulate it.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp32"
    return "bf16" if {"amx_bf16", "avx512_bf16"} & {*_cpu_info("flags")} else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision for forward passes outside the Lightning trainer."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def choose_kernels(model: nn.Module, precision: str, device: torch.device) -> None:
    """Pick what is fastest for short sentences: attention, and products of fp32 matrices.

    The CPU's fused bf16 kernel is about eight times slower than plain matrix products at 16 to 32
    tokens (forward and backward); in fp32 and on a GPU the fused one wins. cuDNN's is left out: it
    makes a plan for each new shape, and nearly every batch has one.

    For products MKL does not use AVX512 on AMD's processors; oneDNN does and takes half the time.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    slow = device.type == "cpu" and precision == "bf16"
    model.set_attn_implementation("eager" if slow else "sdpa")  # type: ignore[operator]
    if slow_mkl():
        use_onednn(model)


def slow_mkl() -> bool:
    """Whether MKL multiplies fp32 matrices at half the speed of oneDNN here."""
    amd = "AuthenticAMD" in _cpu_info("vendor_id")
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(amd and "avx512f" in _cpu_info("flags") and onednn)


def describe_hardware(device: torch.device) -> str:
    """One line about the machine for run records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    name = " ".join(_cpu_info("model name")) or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _cpu_info(field: str) -> list[str]:
    """Words of a field of the first processor; none where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    values = (line.split(":", 1)[1] for line in lines if line.split("\t", 1)[0] == field)
    return next(values, "").split()
