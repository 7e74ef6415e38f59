"""Which files a corpus consists of."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from mlkd.config.inputs import CorpusConfig
from mlkd.config.languages import spellings
from mlkd.data.readers import text_columns
from mlkd.data.rows import count_lines
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

_DEMO = Path(__file__).with_name("demo")


def source_files(
    name: str,
    corpus: CorpusConfig,
    target: str,
    root: str | None,
    *,
    allow_download: bool = False,
) -> list[Path]:
    """The files whose content decides the rows of one translation language, in reading order.

    Args:
        name: Key of the corpus in ``data.corpora``.
        corpus: Where it is and what it looks like.
        target: Translation language, one of ``corpus.targets``.
        root: Folder that relative paths start from.
        allow_download: Whether a hub dataset that is not in the local cache may be fetched.

    Raises:
        UserError: Something is missing.
    """
    if corpus.format == "demo":
        from mlkd.data.demo.grammar import LEXICON

        lexicon = [_DEMO / f"{kind}.tsv" for kind in LEXICON]
        return sorted([*_DEMO.glob("*.py"), *_DEMO.glob("*.txt"), *lexicon])
    if not corpus.path:
        raise UserError(f"data.corpora.{name}.path is empty; format {corpus.format} needs one")
    path = _place(corpus.path, corpus, target, root)
    if corpus.format == "dataset":
        subset = corpus.fill(corpus.subset or "", target)
        if not path.is_dir():
            name_on_hub = corpus.fill(corpus.path, target)
            path = _from_hub(name, name_on_hub, subset, corpus.revision, path, allow_download)
        return _dataset(name, path, subset, corpus.split)
    if corpus.format == "gettext" and path.is_dir():
        return _catalogues(name, path, target)
    if corpus.format == "parquet" and path.is_dir():
        return _some(sorted(path.glob("*.parquet")), name, f"{path}/*.parquet")
    files = [path]
    if corpus.format == "aligned":
        if not corpus.target_path:
            raise UserError(f"data.corpora.{name}.target_path is empty; format aligned needs one")
        files.append(_place(corpus.target_path, corpus, target, root))
    for template, file in zip((corpus.path, corpus.target_path or ""), files, strict=False):
        if not file.is_file():
            if codes := _other_codes(corpus, target, root, template):
                shown = ",".join(f"{code}:{written}" for code, written in codes.items())
                key = f"data.corpora.{name}.codes"
                raise UserError(f"{key}: no {file}; {key}={{{shown}}} finds the one that is there")
            _some([], name, str(file))
    return files


def count_rows(corpus: CorpusConfig, files: list[Path]) -> int | None:
    """How many rows the files have, where that is quick to find out."""
    if corpus.format in {"tsv", "aligned", "jsonl"}:
        aligned = corpus.format == "aligned"
        pairs_a_line = len(text_columns(corpus, corpus.targets[0], files)) if aligned else 1
        return pairs_a_line * (count_lines(files[0]) - corpus.header)
    return None


def _place(path: str, corpus: CorpusConfig, target: str, root: str | None) -> Path:
    return Path(root or "") / Path(corpus.fill(path, target)).expanduser()


def _other_codes(
    corpus: CorpusConfig, target: str, root: str | None, template: str
) -> dict[str, str]:
    """The setting ``codes`` that finds a file which writes its languages otherwise, if any."""
    for here, there in product(spellings(corpus.source), spellings(target)):
        codes = corpus.codes | {corpus.source: here, target: there}
        other = corpus.model_copy(update={"codes": codes})
        if _place(template, other, target, root).is_file():
            return {code: written for code, written in codes.items() if code != written}
    return {}


def _from_hub(
    name: str, repository: str, subset: str, revision: str | None, path: Path, allow_download: bool
) -> Path:
    """Folder of a hub dataset at a revision, from the local cache or the network."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[f"{subset}/*"] if subset else None,
            local_files_only=not allow_download,
        )
    except Exception as error:  # the hub client raises its own, httpx's and OS errors
        raise UserError(
            f"data.corpora.{name}: no folder {path}, and the hub dataset {repository} cannot be had"
            f" ({reason_of(error)}); set data.root to a local copy, or allow_download=true"
        ) from None
    return Path(folder)


def _dataset(name: str, path: Path, subset: str, split: str) -> list[Path]:
    """Files of one split: of a dataset saved to disk, or the Parquet files of a hub layout."""
    folder = path / subset
    if (folder / "dataset_dict.json").is_file():
        folder = folder / split
    if (folder / "state.json").is_file():
        return sorted(file for file in folder.iterdir() if file.is_file())
    patterns = f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"
    for place in (folder, folder / "data"):
        files = sorted(file for pattern in patterns for file in place.glob(pattern))
        if files:
            return files
    return _some([], name, f"saved dataset and no {split} Parquet files in {folder}")


def _some(files: list[Path], name: str, wanted: str) -> list[Path]:
    if not files:
        raise UserError(
            f"data.corpora.{name}: no {wanted}; set data.root or data.corpora.{name}.path"
        )
    return files


def _catalogues(name: str, folder: Path, target: str) -> list[Path]:
    """``de.po`` and ``de/LC_MESSAGES/*`` anywhere below; a .po file wins over its .mo file."""
    found = {}
    for suffix in (".mo", ".po"):
        for path in sorted(folder.rglob(f"*{suffix}")):
            in_locale = path.parent.name == "LC_MESSAGES" and path.parent.parent.name == target
            if in_locale or path.stem == target:
                found[path.with_suffix("")] = path
    wanted = f"{target}.po or {target}/LC_MESSAGES/*.po or .mo below {folder}"
    return _some(sorted(found.values()), name, wanted)
