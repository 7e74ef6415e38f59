"""Sparse differences: what a task changes of an encoder, as a file of its own.

A file belongs to one base, whose weights it names by their hash. Applied, it gives the encoder
that was trained bit for bit, because it holds the new values of the entries and not what was added
to them: ``b + (a - b)`` is not always ``a`` in float32. Several are added (Ansell et al., 2023).

Format 1, safetensors. Of each tensor that has changed, flat positions ``<name>.gaps`` and values
``<name>.values`` (float32). A gap, a byte, says how many entries were left out since the last one;
255 leaves out 255 entries and takes none, so that a gap may be longer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mlkd.config.paths import user_path
from mlkd.output.errors import UserError
from mlkd.storage.files import digest, reason_of

FILE = "diff.safetensors"
"""Its name in the output of a run and in an exported folder."""
_FORMAT, _VERSION = "mlkd sparse difference", "1"
_SKIP = 255
_KEYS = {"format", "version", "base", "density", "sha256"}


@dataclass(frozen=True)
class Entries:
    """Entries of a tensor: flat positions ``(n,)`` int64, ascending, and values ``(n,)`` fp32."""

    index: Tensor
    values: Tensor


@dataclass(frozen=True)
class Difference:
    """What was changed of an encoder.

    Attributes:
        base: Hash of the weights of that encoder (see :func:`weights_fingerprint`).
        density: Share of its entries that were allowed to change.
        changed: New values by name of the parameter.
    """

    base: str
    density: float
    changed: Mapping[str, Entries] = field(repr=False)

    @property
    def count(self) -> int:
        """Entries that have changed."""
        return sum(len(entries.index) for entries in self.changed.values())


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of an encoder by name, but for a pooler's.

    No sentence vector goes through that; where a folder has none, its numbers are random.
    """
    named = model.named_parameters()
    return {name: parameter for name, parameter in named if ".pooler." not in f".{name}"}


def codes_of(model: nn.Module) -> dict[str, Tensor]:
    """The codes of a coded word table, by name; no difference changes them."""
    return {name: b for name, b in model.named_buffers() if b.dtype == torch.uint8}


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of names, shapes and bits of weights, in any order (see :func:`weights_of`)."""
    parts = []
    for name, tensor in weights:
        flat = tensor.detach().cpu().contiguous().view(-1)
        content = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
        parts.append([name, str(tensor.dtype), list(tensor.shape), content])
    return digest(sorted(parts), 32)


def save_difference(difference: Difference, file: Path) -> None:
    """Write a difference."""
    tensors = {}
    for name, entries in difference.changed.items():
        tensors[f"{name}.gaps"] = _gaps(entries.index)
        tensors[f"{name}.values"] = entries.values.float().contiguous()
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "base": difference.base,
        "density": repr(difference.density),
    }
    about["sha256"] = _checksum(about, tensors)
    save_file(tensors, file, metadata=about)


def read_difference(place: Path | str) -> Difference:
    """Read a difference from its file, from the folder that holds it, or from a finished run.

    Raises:
        UserError: There is none, or it is damaged or none of this format.
    """
    file = _file(user_path(place))
    try:
        with safe_open(file, framework="pt", device="cpu") as content:
            about = content.metadata() or {}
            if about.get("format") != _FORMAT:
                raise UserError(f"{file}: no sparse difference")
            if about.get("version") != _VERSION:
                raise UserError(
                    f"{file}: format {about.get('version')} is not known; allowed: {_VERSION}"
                )
            tensors = {name: content.get_tensor(name) for name in content.keys()}
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{file}: damaged ({reason_of(error)})") from None
    said = about.pop("sha256", None)
    if about.keys() != _KEYS - {"sha256"} or said != _checksum(about, tensors):
        raise UserError(f"{file}: damaged (its checksum is not that of its content)")
    try:
        density = float(about["density"])
        return Difference(about["base"], density, dict(_entries(tensors)))
    except ValueError as error:
        raise UserError(f"{file}: damaged ({error})") from None


def _file(place: Path) -> Path:
    """The file that a path means."""
    for file in (place, place / FILE, place / "diff" / FILE):
        if file.is_file():
            return file
    raise UserError(f"{place}: no {FILE}; give the file, the folder that holds it, or a run")


def _checksum(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return digest([dict(about), weights_fingerprint(tensors.items())], 64)


def _gaps(index: Tensor) -> Tensor:
    """Bytes of ascending positions ``(n,)``."""
    left_out = index.diff(prepend=index.new_tensor([-1])) - 1
    ends = (left_out // _SKIP + 1).cumsum(0) - 1
    gaps = torch.full((int(ends[-1]) + 1,), _SKIP, dtype=torch.uint8)
    gaps[ends] = (left_out % _SKIP).to(torch.uint8)
    return gaps


def _positions(gaps: Tensor) -> Tensor:
    """The positions of bytes; ascending, whatever the bytes are."""
    takes = gaps != _SKIP
    return (gaps.long() + takes).cumsum(0)[takes] - 1


def _entries(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Entries]]:
    """Entries by name of the tensor.

    Raises:
        ValueError: They are none, in words.
    """
    names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    if len(tensors) != 2 * len(names):
        raise ValueError("not one tensor of gaps and one of values for each name")
    for name in names:
        gaps, values = tensors.get(f"{name}.gaps"), tensors.get(f"{name}.values")
        if gaps is None or values is None:
            raise ValueError(f"not one tensor of gaps and one of values for {name}")
        if gaps.dtype != torch.uint8 or values.dtype != torch.float32:
            raise ValueError(f"{name}: {gaps.dtype} and {values.dtype}, not uint8 and float32")
        index = _positions(gaps) if gaps.ndim == 1 else None
        if index is None or not len(index) or values.shape != index.shape or gaps[-1] == _SKIP:
            raise ValueError(f"{name}: not one value for each position")
        if not values.isfinite().all():
            raise ValueError(f"{name}: a value is not finite")
        yield name, Entries(index, values)


class Differences:
    """The sparse differences of one encoder, on its weights in memory.

    The values that differences take the place of are kept, so that the base comes back bit for bit
    without a second encoder.

    Attributes:
        base: Hash of the weights without any difference.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take an encoder as the base; nothing is changed.

        Args:
            model: As :func:`mlkd.load` gives it: float32, without any difference.
        """
        self._weights = weights_of(model)
        self._kept: dict[str, Entries] = {}
        self.base = weights_fingerprint([*self._weights.items(), *codes_of(model).items()])

    def apply(self, *places: Path | str | Difference) -> None:
        """Make the encoder its base plus these differences, and no others.

        Where several change an entry their changes are added, in float64. Their order counts for
        nothing.

        Args:
            places: Files, folders that hold one, finished runs, or what was read from them.

        Raises:
            UserError: One is damaged or belongs to another base; the encoder is as it was.
        """
        found = []
        for place in places:
            one = place if isinstance(place, Difference) else read_difference(place)
            self._check(one, "difference" if isinstance(place, Difference) else str(place))
            found.append(one)
        found.sort(key=_content)
        new: dict[str, Entries] = {}
        for name in {name for one in found for name in one.changed}:
            parts = [one.changed[name] for one in found if name in one.changed]
            new[name] = _added(name, self._pristine(name), parts)
        self.remove()
        for name, entries in new.items():
            old = self._flat(name)[entries.index.to(self._weights[name].device)].cpu()
            self._kept[name] = Entries(entries.index, old)
            self._write(name, entries)

    def remove(self) -> None:
        """Make the encoder its base again, bit for bit."""
        for name, entries in self._kept.items():
            self._write(name, entries)
        self._kept = {}

    def _check(self, one: Difference, place: str) -> None:
        """Refuse a difference of another base."""
        if one.base != self.base:
            raise UserError(
                f"{place}: of another base (weights {one.base[:12]}) than this encoder "
                f"({self.base[:12]})"
            )
        for name, entries in one.changed.items():
            weight = self._weights.get(name)
            if weight is None:
                raise UserError(f"{place}: damaged (the base has no tensor {name})")
            if int(entries.index[-1]) >= weight.numel():
                raise UserError(
                    f"{place}: damaged ({name}: position {int(entries.index[-1])} of "
                    f"{weight.numel()} entries)"
                )

    def _pristine(self, name: str) -> Tensor:
        """A tensor of the base, flat, on the CPU."""
        whole = self._flat(name).cpu()
        if name in self._kept:
            whole = whole.clone()
            whole[self._kept[name].index] = self._kept[name].values
        return whole

    def _flat(self, name: str) -> Tensor:
        return self._weights[name].detach().view(-1)

    def _write(self, name: str, entries: Entries) -> None:
        flat = self._flat(name)
        flat[entries.index.to(flat.device)] = entries.values.to(flat.device)


def _content(difference: Difference) -> str:
    """Hash of a difference."""
    parts = difference.changed.items()
    both = [(f"{name}.{key}", x) for name, e in parts for key, x in vars(e).items()]
    return weights_fingerprint(both)


def _added(name: str, base: Tensor, parts: list[Entries]) -> Entries:
    """The new values of a tensor that several differences change.

    Args:
        name: Of the tensor.
        base: Its flat values without any.
        parts: Those of each.

    Raises:
        UserError: A sum is too large for float32.
    """
    values = torch.cat([part.values for part in parts]).double()
    index, place, count = torch.cat([part.index for part in parts]).unique(
        return_inverse=True, return_counts=True
    )
    old = base[index].double()
    total = old.index_add(0, place, values - old[place])
    alone = torch.empty_like(old)
    alone[place] = values
    new = torch.where(count == 1, alone, total).float()
    if not new.isfinite().all():
        raise UserError(f"differences: the sum of their values in {name} is not finite")
    return Entries(index, new)
