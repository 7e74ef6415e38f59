"""Pair store: cleaned, split, deduplicated parallel pairs in memory-mapped files."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlkd.data.cleaning import below, clean, english_hash, hash64, normal_form
from mlkd.data.readers import UNFINISHED, Reject, Row, read, source_files
from mlkd.errors import UserError
from mlkd.files import digest, file_sha256, replacing_folder, write_json
from mlkd.progress import progress
from mlkd.schema import DataConfig

log = logging.getLogger(__name__)

_FORMAT = 1
_ARRAYS = ("source", "translation", "group", "domain", "dev", "offsets", "language")
_PER_ROW = np.dtype(
    [("source", "u8"), ("target", "u8"), ("group", "u2"), ("domain", "u2"), ("dev", "?")]
)


@dataclass(frozen=True)
class Group:
    """Pairs of one corpus in one language direction."""

    corpus: str
    source_lang: str
    target_lang: str


class PairStore:
    """Pairs over a table of distinct sentences; every array is memory-mapped.

    Attributes:
        source: Sentence index of each pair's source ``(n,)``.
        translation: Sentence index of its translation ``(n,)``.
        group: Index into ``groups`` ``(n,)``.
        domain: Index into ``domains`` ``(n,)``.
        dev: Whether the pair is held out ``(n,)``.
        language: Index into ``languages`` of each sentence ``(n_sentences,)``.
        fingerprint: Hash of the content.
    """

    source: np.ndarray
    translation: np.ndarray
    group: np.ndarray
    domain: np.ndarray
    dev: np.ndarray
    offsets: np.ndarray
    language: np.ndarray

    def __init__(self, folder: Path) -> None:
        """Open a folder written by :func:`prepare_pairs`.

        Raises:
            OSError, ValueError, KeyError: The folder is damaged.
        """
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.fingerprint: str = meta["fingerprint"]
        self.languages: list[str] = meta["languages"]
        self.domains: list[str] = meta["domains"]
        self.groups = [Group(**group) for group in meta["groups"]]
        self.counts: dict[str, Any] = meta["counts"]
        for name in _ARRAYS:
            path = folder / f"{name}.npy"
            setattr(self, name, np.load(path, mmap_mode="r", allow_pickle=False))
        self._text = np.memmap(folder / "text.bin", np.uint8, mode="r")
        if len(self._text) != self.offsets[-1] or len(self.source) != meta["pairs"]:
            raise ValueError(f"{folder}: files do not fit together")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def n_sentences(self) -> int:
        """Number of distinct sentences."""
        return len(self.language)

    def train_pairs(self) -> np.ndarray:
        """Indices of the training pairs."""
        return np.flatnonzero(~self.dev)

    def dev_pairs(self) -> np.ndarray:
        """Indices of the held-out pairs."""
        return np.flatnonzero(self.dev)

    def text(self, index: int) -> str:
        """One sentence."""
        return bytes(self._text[self.offsets[index] : self.offsets[index + 1]]).decode()

    def texts(self, indices: np.ndarray) -> list[str]:
        """Sentences of some indices."""
        return [self.text(int(i)) for i in indices]


def prepare_pairs(
    config: DataConfig, exclude: Collection[str], cache: Path, *, allow_download: bool = False
) -> PairStore:
    """Open the pair store of a data configuration, or make it.

    Args:
        config: Corpora and cleaning.
        exclude: Evaluation sentences; pairs with one of them on either side are removed.
        cache: Folder of all caches.
        allow_download: Whether hub datasets may be downloaded.

    Raises:
        UserError: A corpus is missing, too dirty or empty, or a split is.
    """
    wanted = _wanted(config)
    folder = cache / f"pairs-{_key(config, wanted, exclude)}"
    if folder.is_dir():
        try:
            return PairStore(folder)
        except (OSError, ValueError, KeyError) as error:
            damaged = folder.with_name(f"{folder.name}.damaged-{digest(str(error), 6)}")
            log.warning("%s is damaged (%s); it is made again", folder, error)
            folder.rename(damaged)
    with replacing_folder(folder) as part:
        _write(config, wanted, exclude, part, cache, allow_download)
    return PairStore(folder)


def _wanted(config: DataConfig) -> list[tuple[str, str]]:
    """(corpus, translation language) groups in a fixed order."""
    offered = {t for corpus in config.corpora.values() for t in corpus.targets}
    for language in config.languages or []:
        if language not in offered:
            allowed = ", ".join(sorted(offered))
            raise UserError(f"data.languages: no corpus offers {language}; allowed: {allowed}")
    return [
        (name, target)
        for name, corpus in config.corpora.items()
        for target in corpus.targets
        if config.languages is None or target in config.languages
    ]


def _key(config: DataConfig, wanted: list[tuple[str, str]], exclude: Collection[str]) -> str:
    """Hash of what decides the content: settings, source files, excluded sentences."""
    settings = config.model_dump(
        include={"corpora", "languages", "max_chars", "max_rejected", "dev_fraction", "fraction"}
    )
    files = [
        [file_sha256(f) for f in source_files(name, config.corpora[name], target, config.root)]
        for name, target in wanted
    ]
    demo = Path(__file__).with_name("demo")
    if any(config.corpora[name].format == "demo" for name, _ in wanted):
        files.append([file_sha256(f) for f in sorted(demo.glob("*.*")) if f.is_file()])
    return digest([_FORMAT, settings, files, digest(sorted(exclude))])


def _write(
    config: DataConfig,
    wanted: list[tuple[str, str]],
    exclude: Collection[str],
    folder: Path,
    cache: Path,
    allow_download: bool,
) -> None:
    """First pass: stream rows to disk. Second pass: keep each sentence and each pair once."""
    normal = {normal_form(text) for text in exclude}
    counts: dict[str, Counter[str]] = {}
    domains: dict[str, int] = {}
    with (
        (folder / "raw.txt").open("wb") as text,
        (folder / "raw.rows").open("wb") as rows,
        (folder / "rejected.tsv").open("w", encoding="utf-8", newline="") as rejected,
    ):
        bar = progress("read pairs", total=None, unit=" pairs")
        for number, (name, target) in enumerate(wanted):
            corpus = config.corpora[name]
            tally = counts.setdefault(f"{name} {corpus.source}-{target}", Counter())
            found = read(name, corpus, target, config.root, allow_download=allow_download)
            for row in _kept(found, config, corpus.max_pairs, normal, tally, rejected):
                bar.update()
                sides = [x.encode() for x in (row.source, row.target)]
                text.write(b"\n".join(sides) + b"\n")
                dev = below(english_hash(row.source), config.dev_fraction)
                domain = domains.setdefault(row.domain, len(domains))
                hashes = [
                    hash64(side, salt=language.encode())
                    for side, language in zip(
                        sides, (row.source_lang, row.target_lang), strict=True
                    )
                ]
                rows.write(np.array((*hashes, number, domain, dev), _PER_ROW).tobytes())
            rejected.flush()
            _check_share(name, target, tally, config.max_rejected, folder, cache)
        bar.close()
    languages = sorted({c.source for c in config.corpora.values()} | {t for _, t in wanted})
    groups = [Group(name, config.corpora[name].source, target) for name, target in wanted]
    arrays = _compact(folder, groups, languages)
    kept_dev, kept_all = int(arrays["dev"].sum()), len(arrays["dev"])
    if kept_all == 0 or kept_dev in (0, kept_all):
        raise UserError(
            f"data: {kept_all - kept_dev} training and {kept_dev} dev pairs are left; "
            f"both are needed (data.dev_fraction={config.dev_fraction})"
        )
    sha256 = {name: file_sha256(folder / f"{name}.npy") for name in _ARRAYS}
    sha256["text"] = file_sha256(folder / "text.bin")
    write_json(
        folder / "meta.json",
        {
            "format": _FORMAT,
            "fingerprint": digest([sha256, languages, list(domains)], 32),
            "pairs": kept_all,
            "dev": kept_dev,
            "languages": languages,
            "domains": list(domains),
            "groups": [asdict(group) for group in groups],
            "counts": {name: dict(tally) for name, tally in counts.items()},
            "sha256": sha256,
        },
    )


def _kept(
    found: Iterator[Row | Reject],
    config: DataConfig,
    limit: int | None,
    exclude: set[str],
    tally: Counter[str],
    rejected: IO[str],
) -> Iterator[Row]:
    """Clean rows that belong to the training material; everything else is counted."""
    writer = csv.writer(rejected, delimiter="\t", lineterminator="\n")
    for item in found:
        row = item if isinstance(item, Reject) else clean(item, config.max_chars)
        if isinstance(row, Reject):
            tally[row.reason] += 1
            raw = row.raw.decode("utf-8", "replace") if isinstance(row.raw, bytes) else row.raw
            excerpt = raw[:200].encode("utf-8", "replace").decode().replace("\0", "\\0")
            writer.writerow([row.place, row.reason, excerpt])
        elif normal_form(row.source) in exclude or normal_form(row.target) in exclude:
            tally["evaluation sentence"] += 1
        elif config.fraction < 1 and not below(
            hash64(normal_form(row.source).encode(), salt=b"fraction"), config.fraction
        ):
            tally["outside data.fraction"] += 1
        else:
            tally["kept"] += 1
            yield row
            if limit is not None and tally["kept"] >= limit:
                return


def _check_share(
    name: str, target: str, tally: Counter[str], limit: float, folder: Path, cache: Path
) -> None:
    """Stop when a corpus is too dirty, and leave its rejected rows where the user finds them."""
    harmless = {"kept", "evaluation sentence", "outside data.fraction", *UNFINISHED}
    bad = Counter({reason: n for reason, n in tally.items() if reason not in harmless})
    share = bad.total() / max(1, tally.total())
    if share > limit:
        place = cache / f"rejected-{name}-{target}.tsv"
        place.write_bytes((folder / "rejected.tsv").read_bytes())
        reason, number = bad.most_common(1)[0]
        raise UserError(
            f"data.corpora.{name} ({target}): {share:.1%} of the rows are bad, most often "
            f"{reason!r} ({number}); allowed: {limit:.1%} (data.max_rejected); see {place}"
        )


def _compact(folder: Path, groups: list[Group], languages: list[str]) -> dict[str, np.ndarray]:
    """Write the sentence table and the pair arrays from the raw files, which are removed."""
    rows = np.fromfile(folder / "raw.rows", _PER_ROW)
    raw = np.fromfile(folder / "raw.txt", np.uint8)
    ends = np.flatnonzero(raw == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    keys = np.stack([rows["source"], rows["target"]], 1).ravel()
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)  # sentences in the order in which they were read
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    sentence, first = rank[index].astype(np.uint32), first[order]
    lengths = (ends - starts)[first]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    with (folder / "text.bin").open("wb") as text:
        for begin, length in zip(starts[first], lengths, strict=True):
            text.write(raw[begin : begin + length].tobytes())
    source, translation = sentence[0::2], sentence[1::2]
    _, once = np.unique(source.astype(np.uint64) << 32 | translation, return_index=True)
    once.sort()
    side_language = np.array(
        [[languages.index(g.source_lang), languages.index(g.target_lang)] for g in groups], np.uint8
    )
    arrays = {
        "source": source[once],
        "translation": translation[once],
        "group": rows["group"][once],
        "domain": rows["domain"][once],
        "dev": rows["dev"][once],
        "offsets": offsets,
        "language": side_language[rows["group"][first // 2], first % 2],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "raw.rows").unlink()
    (folder / "raw.txt").unlink()
    return arrays
