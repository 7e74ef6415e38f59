"""Sentence vectors from this folder; needs onnxruntime, tokenizers and numpy, nothing else."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Encoder:
    def __init__(self, folder=Path(__file__).parent, threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a thread a batch: no operator waits for another thread
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # it cuts and pads, too
        self.threads = threads or os.cpu_count() or 1

    def encode(self, sentences, batch_size=32):
        """Unit vectors, a row a sentence."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))  # little padding
        vectors = np.empty((len(order), self.session.get_outputs()[0].shape[1]), np.float32)
        size = max(1, min(batch_size, -(-len(order) // self.threads)))
        rows = [order[i : i + size] for i in range(0, len(order), size)]
        batches = [[sentences[i] for i in batch] for batch in rows]
        with ThreadPoolExecutor(self.threads) as pool:  # of this call: a forked process has none
            work = pool.map if len(batches) > 1 else map
            for batch, found in zip(rows, work(self.run, batches), strict=True):
                vectors[batch] = found
        return vectors

    def run(self, sentences):
        batch = self.tokenizer.encode_batch(sentences)
        ids, mask = ([getattr(e, n) for e in batch] for n in ("ids", "attention_mask"))
        inputs = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}
        return self.session.run(None, inputs)[0]
