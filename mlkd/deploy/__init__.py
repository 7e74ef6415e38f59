"""Export: plain checkpoints, ONNX graphs, vocabulary trimming, model card, latency."""
