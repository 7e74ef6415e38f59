"""The student: bottleneck embedding, recurrent encoder, initialisation and vocabulary."""
