"""Sentence vectors from this folder; needs onnxruntime, tokenizers and numpy, nothing else."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Encoder:
    def __init__(self, folder=Path(__file__).parent, threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a thread a batch: no operator waits for another thread
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # it cuts and pads, too
        self.threads = threads or CORES

    def encode(self, sentences, batch_size=32):
        """Unit vectors, a row a sentence."""
        order = np.argsort([len(sentence) for sentence in sentences])  # by length: little padding
        if not len(order):
            return np.empty((0, self.session.get_outputs()[0].shape[1]), np.float32)
        count = max(-(-len(order) // batch_size), min(len(order), self.threads))
        batches = [[sentences[i] for i in rows] for rows in np.array_split(order, count)]
        with ThreadPoolExecutor(self.threads) as pool:  # of this call: a forked process has none
            found = list(pool.map(self.run, batches) if count > 1 else map(self.run, batches))
        return np.concatenate(found)[np.argsort(order)]

    def run(self, sentences):
        batch = self.tokenizer.encode_batch(sentences)
        ids = np.array([e.ids for e in batch], np.int64)
        mask = np.array([e.attention_mask for e in batch], np.int64)
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
