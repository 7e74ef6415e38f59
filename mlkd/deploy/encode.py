"""Sentence vectors from this folder; needs onnxruntime, tokenizers and numpy, nothing else."""

import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# int8 where it is, else 4 bits, else float32
MODELS = "onnx/model_quantized.onnx", "onnx/model_q4.onnx", "onnx/model.onnx"


def saturates():
    """Whether sums of int8 products may saturate: on x86, unless the system says it has VNNI."""
    info = Path("/proc/cpuinfo")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and not (info.is_file() and "vnni" in info.read_text())


def shorter(vectors, dimensions=None, precision="float32"):
    """The first numbers of each vector (n, d) at length 1, in fewer bits.

    int8: times 127 / its largest number, which leaves its cosines as they are. binary: eight signs
    a byte, less 128; `.view(np.uint8)` is what indexes compare by Hamming distance.
    """
    if precision not in ("float32", "int8", "binary"):
        raise ValueError(f"precision={precision!r}: allowed: float32, int8, binary")
    width = vectors.shape[1]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise ValueError(f"dimensions={dimensions}: allowed: 1 to {width}")
    if dimensions is not None:
        vectors = vectors[:, :dimensions]
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(length > 0, length, 1)
    if precision == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        return np.rint(vectors * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=1) ^ 128).view(np.int8)
    return vectors


class Encoder:
    def __init__(self, folder=Path(__file__).parent, threads=0, model=None):
        model = model or next(name for name in MODELS if Path(folder, name).is_file())
        config = json.loads(Path(folder, "tokenizer_config.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a thread a batch: no operator waits for another thread
        if saturates():  # exact, and slower; with VNNI it would be slower only
            options.add_session_config_entry("session.x64quantprecision", "1")
        self.session = onnxruntime.InferenceSession(str(Path(folder, model)), options)
        self.width = self.session.get_outputs()[1].shape[1]
        self.tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        self.longest = config["model_max_length"]
        self.tokenizer.enable_truncation(self.longest)
        pad = config["pad_token"]
        self.tokenizer.enable_padding(pad_id=self.tokenizer.token_to_id(pad), pad_token=pad)
        self.threads = threads or CORES

    def encode(self, sentences, batch_size=32, dimensions=None, precision="float32"):
        """Unit vectors, a row a sentence; the vector alone for a single string."""
        if isinstance(sentences, str):
            return self.encode([sentences], 1, dimensions, precision)[0]
        try:
            given = iter(sentences)
        except TypeError:
            kind = type(sentences).__name__
            raise TypeError(f"sentences: {kind}, no text and no texts") from None
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: allowed: 1 and more")
        texts = [self.cut(text, place) for place, text in enumerate(given)]
        order = np.argsort([len(text) for text in texts])  # by length: little padding
        count = max(-(-len(order) // batch_size), min(len(order), self.threads))
        none = shorter(np.empty((0, self.width), np.float32), dimensions, precision)
        vectors = np.empty((len(texts), none.shape[1]), none.dtype)

        def run(rows):
            vectors[rows] = shorter(self.run([texts[i] for i in rows]), dimensions, precision)

        parts = np.array_split(order, count) if len(order) else []
        with ThreadPoolExecutor(self.threads) as pool:  # of this call: a forked process has none
            list(pool.map(run, parts) if count > 1 else map(run, parts))
        return vectors

    def cut(self, text, place):
        """As much of a text as decides its vector: what is far behind the cut is not tokenised."""
        if not isinstance(text, str):
            raise TypeError(f"sentences[{place}]: {type(text).__name__}, no text: {text!r:.40}")
        size = 32 * self.longest
        while size < len(text):
            start = self.tokenizer.encode(text[:size])
            if start.overflowing and max(end for _, end in start.offsets) < size // 2:
                break
            size *= 4
        return text[:size]

    def run(self, texts):
        batch = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in batch], np.int64)
        mask = np.array([e.attention_mask for e in batch], np.int64)
        names = ["sentence_embedding"]
        return self.session.run(names, {"input_ids": ids, "attention_mask": mask})[0]
