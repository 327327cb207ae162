"""Sparse-training methods: one file each, found by its name."""
