"""Where encoders are, and the sizes that local files tell, free of torch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from mlkd.config.inputs import EncoderConfig
from mlkd.config.paths import encoder_at, user_path
from mlkd.config.schema import TrainConfig
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.output.errors import UserError


def check_backbone(config: TrainConfig) -> None:
    """Compare encoders, and the student's size with the one it copies, as far as local files tell.

    Raises:
        UserError: Too many layers, too wide a bottleneck, or encoders differ in width.
    """
    teacher = _backbone(encoder_folder(config.teacher))
    assistant = config.assistant.encoder
    backbone = teacher if assistant is None else _backbone(encoder_folder(assistant))
    _compare_widths(teacher, "assistant", backbone)
    if (folder := source_folder(config.init)) is not None:
        backbone = _backbone(folder)
        _compare_widths(teacher, "init.source", backbone)
    if backbone is not None and config.budget_mib is None:
        width, neurons = backbone["hidden_size"], backbone.get("intermediate_size")
        check_size(config.student, backbone["num_hidden_layers"], width, neurons)


def _compare_widths(
    teacher: dict[str, int] | None, name: str, other: dict[str, int] | None
) -> None:
    if teacher is not None and other is not None:
        check_widths(teacher["hidden_size"], name, other["hidden_size"])


def check_widths(teacher: int | None, name: str, other: int | None) -> None:
    """Refuse an encoder that could not imitate the teacher.

    Args:
        teacher: Width of its vectors.
        name: What the configuration calls the other encoder.
        other: Width of that one's vectors.

    Raises:
        UserError: Their vectors have different widths.
    """
    if teacher != other:
        raise UserError(
            f"teacher (width {teacher}) and {name} (width {other}): they must have the same width"
        )


def check_size(size: StudentConfig, layers: int, width: int, neurons: int | None) -> None:
    """Compare a student's size with that of the encoder it is made from.

    Args:
        size: What is asked for.
        layers: Of the encoder.
        width: Of its token vectors.
        neurons: Of its layers; None = not known.

    Raises:
        UserError: More is asked for than there is, or a bottleneck that is none.
    """
    if size.layers > layers:
        raise UserError(
            f"student.layers={size.layers}: the backbone has {layers} layers; "
            f"allowed: 1 to {layers}"
        )
    if size.bottleneck is not None and size.bottleneck >= width:
        raise UserError(
            f"student.bottleneck={size.bottleneck}: the backbone is {width} wide; "
            f"allowed: 1 to {width - 1}, or null"
        )
    if size.codes is not None and width % size.codes:
        divisors = [str(n) for n in range(1, width + 1) if width % n == 0]
        raise UserError(
            f"student.codes={size.codes}: the backbone is {width} wide; allowed: "
            f"{', '.join(divisors)}, or null"
        )
    if size.intermediate is not None and neurons is not None and size.intermediate > neurons:
        raise UserError(
            f"student.intermediate={size.intermediate}: the backbone's layers have {neurons}; "
            f"allowed: 1 to {neurons}, or null"
        )


def source_folder(config: InitConfig) -> Path | None:
    """The folder that a student copies; None where it copies the assistant, or nothing.

    Raises:
        UserError: It is that of no encoder.
    """
    if config.folder is None:
        return None
    folder = encoder_at(config.folder)
    if not folder.is_dir() and folder.parent.is_dir() and folder.name == "student":
        raise UserError(f"init.source={config.folder}: a run without a student yet")
    if not folder.is_dir():
        raise UserError(
            f"init.source={config.folder}: no such folder; allowed: scratch, base, teacher, or the "
            "folder of a run or an encoder"
        )
    return _of_sentence_transformers(folder)


def encoder_folder(config: EncoderConfig) -> Path | None:
    """Local folder of an encoder; None for a hub model.

    Raises:
        UserError: The package is not installed or the folder does not exist.
    """
    if config.package is not None:
        try:
            spec = importlib.util.find_spec(config.package)
        except (ImportError, ValueError):  # of a package around it, or a name that is none
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"package {config.package} is not installed; pip install it")
        return Path(spec.origin).parent / "model"
    if config.path is not None:
        return _of_sentence_transformers(user_path(config.path))
    return None


def _of_sentence_transformers(folder: Path) -> Path:
    if not (folder / "modules.json").is_file():
        raise UserError(f"{folder}: no sentence-transformers folder (it has no modules.json)")
    return folder


def _backbone(folder: Path | None) -> dict[str, int] | None:
    """Sizes of a local encoder, from its ``config.json``; None where it does not tell."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    if (folder / "mlkd_config.json").is_file():  # its layers may run several times
        return None
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = {key: int(content[key]) for key in ("hidden_size", "num_hidden_layers")}
        if "intermediate_size" in content:
            sizes["intermediate_size"] = int(content["intermediate_size"])
        return sizes
    except KeyError:
        return None
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{folder / 'config.json'}: not the configuration of an encoder") from None
