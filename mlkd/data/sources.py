"""Which files a corpus consists of."""

from __future__ import annotations

from pathlib import Path

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.config.paths import unpacked_name
from mlkd.data.formats import module_of
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.names import Choice, choose_files
from mlkd.output.errors import UserError


def asked_languages(config: DataConfig) -> set[str]:
    """Translation languages that are read.

    Raises:
        UserError: No corpus offers one that is asked for.
    """
    offered = {target for corpus in config.corpora.values() for target in corpus.targets}
    for language in config.languages or []:
        if language not in offered:
            allowed = ", ".join(sorted(offered))
            raise UserError(f"data.languages: no corpus offers {language}; allowed: {allowed}")
    return offered if config.languages is None else set(config.languages)


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
    wanted, module = Wanted(name, corpus, target), module_of(corpus.format)
    if hasattr(module, "find"):
        found: list[Path] = module.find(wanted, root, allow_download)
        return found
    if not corpus.path:
        raise wanted.refuse(f"format {corpus.format} needs one", ".path is empty")
    folder = wanted.place(corpus.path, root)
    if hasattr(module, "SUFFIXES") and folder.is_dir():
        choice = _below(wanted, folder)
        names = " or ".join(f"*{suffix}" for suffix in module.SUFFIXES)
        if module.NAMED:
            names = f"{target}.po or {target}/LC_MESSAGES/*.po, {target}/*.po, *-{target}.po or .mo"
        unknown = f" ({choice.words()})" if choice.left else ""
        return wanted.some(choice.files, f"{names} below {folder}{unknown}")
    files = [wanted.file(corpus.path, root)]
    if hasattr(module, "TWO_FILES"):
        if not corpus.target_path:
            raise wanted.refuse(f"format {corpus.format} needs one", ".target_path is empty")
        files.append(wanted.file(corpus.target_path, root))
    return files


def left_out(name: str, corpus: CorpusConfig, target: str, root: str | None) -> str | None:
    """A line about files of a folder that belong to no language or to another region, if any."""
    wanted = Wanted(name, corpus, target)
    folder = wanted.place(corpus.path, root)
    if not hasattr(module_of(corpus.format), "SUFFIXES") or not folder.is_dir():
        return None
    choice = _below(wanted, folder)
    if not choice.left:
        return None
    return f"data.corpora.{name}: {len(choice.files)} files for {target}; {choice.words()}"


def count_rows(corpus: CorpusConfig, files: list[Path]) -> int | None:
    """How many rows the files have, where that is quick to find out."""
    module = module_of(corpus.format)
    if not hasattr(module, "count"):
        return None
    number: int = module.count(Wanted("", corpus, corpus.targets[0]), files)
    return number


def _below(wanted: Wanted, folder: Path) -> Choice:
    """Files of a format anywhere below a folder; of two with one name, the later suffix wins."""
    module = module_of(wanted.corpus.format)
    found: dict[Path, Path] = {}
    below = sorted(folder.rglob("*"))
    for suffix in module.SUFFIXES:
        for path in below:
            plain = unpacked_name(path)
            if plain.suffix == suffix and path.is_file():
                found[plain.with_suffix("")] = path
    files = sorted(found.values())
    if module.NAMED is None:
        return Choice(folder, files, [])
    all_asked = not module.NAMED or "{target}" in wanted.corpus.path
    languages = wanted.target, wanted.source
    return choose_files(files, folder, *languages, module.SAID, all_asked=all_asked)
