"""Token store: every distinct sentence tokenised once per tokenizer, memory-mapped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlkd.data.store import PairStore
from mlkd.output.progress import progress
from mlkd.storage.files import digest, new_array, write_json
from mlkd.storage.lock import Lock
from mlkd.storage.seals import sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT = 2
"""Version of the files; a change makes every store anew."""
_CHUNK = 20_000


@dataclass(frozen=True)
class TokenStore:
    """Token ids of all sentences of a pair store, special tokens included."""

    ids: np.ndarray
    """All ids one after the other ``(total,)``."""
    offsets: np.ndarray
    """Start of each sentence in ``ids``, and the end of the last ``(n_sentences + 1,)``."""
    pad_id: int

    def padded(self, sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of some sentences, each ``(n, longest)`` int64, padded on the right."""
        return pad(self.ids, self.offsets[sentences], self.offsets[sentences + 1], self.pad_id)

    def frequency(self, vocabulary: int) -> np.ndarray:
        """Count of each token ``(vocabulary,)`` over the distinct sentences."""
        counts = np.zeros(vocabulary, np.int64)
        for start in range(0, len(self.ids), 1 << 24):
            counts += np.bincount(self.ids[start : start + (1 << 24)], minlength=vocabulary)
        return counts


def pad(
    ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gather rows of a flat id array into a padded block, without a loop over sentences."""
    lengths = ends - starts
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    block = np.full(mask.shape, pad_id, np.int64)
    block[mask] = ids[(starts[:, None] + columns)[mask]]
    return block, mask.astype(np.int64)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of everything that decides a fast tokenizer's ids, but for where it cuts and pads.

    These two are left behind by whoever called it last, and are given anew at each call.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({k: v for k, v in state.items() if k not in {"truncation", "padding"}}, 32)


def tokenise(
    pairs: PairStore, tokenizer: PreTrainedTokenizerBase, max_tokens: int, cache: Path
) -> TokenStore:
    """Open the token store of a pair store, or make it.

    Args:
        pairs: The sentences.
        tokenizer: A fast tokenizer.
        max_tokens: Longer sentences are cut.
        cache: Folder of all caches.
    """
    key = digest([_FORMAT, pairs.fingerprint, tokenizer_fingerprint(tokenizer), max_tokens])
    folder = cache / f"tokens-{key}"
    with Lock(folder.with_suffix(".lock"), waiting_for="tokenisation"):
        sealed(folder, lambda part: _write(pairs, tokenizer, max_tokens, part))
    ids = np.load(folder / "ids.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
    return TokenStore(ids, offsets, tokenizer.pad_token_id)


def _write(
    pairs: PairStore, tokenizer: PreTrainedTokenizerBase, max_tokens: int, folder: Path
) -> None:
    """Tokenise in chunks, so that memory does not grow with the corpus."""
    kind = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
    offsets = np.zeros(pairs.n_sentences + 1, np.int64)
    bar = progress("tokenise", total=pairs.n_sentences, unit=" sentences")
    with (folder / "ids.raw").open("wb") as raw:
        for start in range(0, pairs.n_sentences, _CHUNK):
            chunk = np.arange(start, min(start + _CHUNK, pairs.n_sentences))
            rows = tokenizer(
                pairs.texts(chunk),
                truncation=True,
                max_length=max_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            offsets[chunk + 1] = [len(row) for row in rows]
            raw.write(np.fromiter((i for row in rows for i in row), kind).tobytes())
            bar.update(len(chunk))
    bar.close()
    np.cumsum(offsets, out=offsets)
    np.save(folder / "offsets.npy", offsets)
    ids = new_array(folder / "ids.npy", kind, (int(offsets[-1]),))
    ids[:] = np.memmap(folder / "ids.raw", kind, mode="r", shape=ids.shape)
    ids.flush()
    (folder / "ids.raw").unlink()
    write_json(folder / "meta.json", {"sentences": pairs.n_sentences, "tokens": int(offsets[-1])})
