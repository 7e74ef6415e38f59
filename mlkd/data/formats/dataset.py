"""Datasets saved to disk, and datasets of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.tables import table_pairs
from mlkd.data.rows import Pair, Reject
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two named columns."""
    return table_pairs(wanted, wanted.two_names(files), files)


def find(wanted: Wanted, root: str | None, allow_download: bool) -> list[Path]:
    """Files of one split of one subset."""
    corpus = wanted.corpus
    path = wanted.place(corpus.path, root)
    subset = corpus.fill(corpus.subset or "", wanted.target)
    if not path.is_dir():
        path = _from_hub(wanted, subset, path, allow_download)
    return _split(wanted, path, subset)


def _from_hub(wanted: Wanted, subset: str, path: Path, allow_download: bool) -> Path:
    """Folder of a hub dataset at a revision, from the local cache or the network."""
    from huggingface_hub import snapshot_download

    repository = wanted.corpus.fill(wanted.corpus.path, wanted.target)
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=wanted.corpus.revision,
            allow_patterns=[f"{subset}/*"] if subset else None,
            local_files_only=not allow_download,
        )
    except Exception as error:  # the hub client raises its own, httpx's and OS errors
        raise UserError(
            f"data.corpora.{wanted.name}: no folder {path}, and the hub dataset {repository} "
            f"cannot be had ({reason_of(error)}); set data.root to a local copy, or "
            "allow_download=true"
        ) from None
    return Path(folder)


def _split(wanted: Wanted, path: Path, subset: str) -> list[Path]:
    """Files of one split: of a dataset saved to disk, or the Parquet files of a hub layout."""
    folder, split = path / subset, wanted.corpus.split
    if (folder / "dataset_dict.json").is_file():
        folder = folder / split
    if (folder / "state.json").is_file():
        return sorted(file for file in folder.iterdir() if file.is_file())
    patterns = f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"
    for place in (folder, folder / "data"):
        files = sorted(file for pattern in patterns for file in place.glob(pattern))
        if files:
            return files
    return wanted.some([], f"saved dataset and no {split} Parquet files in {folder}")
