"""The process that uses mlkd as a library: given back as it was, after an exception too."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from mlkd.output.errors import Interrupted


@contextmanager
def unchanged() -> Iterator[None]:
    """Give back threads, random numbers, kernels, signals, loggers, warnings and environment."""
    with ExitStack() as stack:
        for remember in (_environment, _loggers, _signals, _random, _torch, _processes):
            stack.callback(remember())
        stack.enter_context(warnings.catch_warnings())
        yield


@contextmanager
def signals_handed_on() -> Iterator[None]:
    """Give a signal that has stopped the work to the handler that is there now, the caller's."""
    try:
        yield
    except Interrupted as stop:
        number = getattr(signal, str(stop), None)
        if number is not None and threading.current_thread() is threading.main_thread():
            signal.raise_signal(number)
        raise  # the handler did nothing about it


def _environment() -> Callable[[], None]:
    before, hook = dict(os.environ), sys.excepthook

    def restore() -> None:
        for name in os.environ.keys() - before:
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        sys.excepthook = hook

    return restore


def _loggers() -> Callable[[], None]:
    """Levels and handlers of the loggers that are there; a library's first import may add some."""
    known = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    before = [
        (logger, logger.level, logger.handlers[:], logger.propagate, logger.disabled)
        for logger in known
        if isinstance(logger, logging.Logger)
    ]

    def restore() -> None:
        for logger, level, handlers, propagate, disabled in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate, logger.disabled = propagate, disabled

    return restore


def _signals() -> Callable[[], None]:
    """Handlers of signals; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)

    return restore


def _processes() -> Callable[[], None]:
    """How processes are started, which stays open until somebody asks for one."""
    if multiprocessing.get_start_method(allow_none=True) is not None:
        return lambda: None
    return lambda: multiprocessing.set_start_method(None, force=True)


def _random() -> Callable[[], None]:
    cuda: Any = torch.cuda
    plain, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    gpus = cuda.get_rng_state_all() if cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpus is not None:
            cuda.set_rng_state_all(gpus)
        elif cuda.is_initialized():  # they would have begun with the CPU's seed
            cuda.manual_seed_all(torch.initial_seed())

    return restore


def _torch() -> Callable[[], None]:
    """Threads, gradients and the choice of kernels."""
    backends: Any = torch.backends
    cuda, cudnn = backends.cuda, backends.cudnn
    setters: list[tuple[Any, Callable[..., Any]]] = [
        (torch.get_num_threads(), torch.set_num_threads),
        (torch.is_grad_enabled(), torch.set_grad_enabled),
        (torch.get_default_dtype(), torch.set_default_dtype),
        (torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision),
        (cuda.flash_sdp_enabled(), cuda.enable_flash_sdp),
        (cuda.mem_efficient_sdp_enabled(), cuda.enable_mem_efficient_sdp),
        (cuda.math_sdp_enabled(), cuda.enable_math_sdp),
        (cuda.cudnn_sdp_enabled(), cuda.enable_cudnn_sdp),
    ]
    flags = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()

    def restore() -> None:
        for value, setter in setters:
            setter(value)
        for name, value in flags.items():
            setattr(cudnn, name, value)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)

    return restore
