"""Sweeps: many chains of one command, their shared links once, on this machine or on SLURM."""
