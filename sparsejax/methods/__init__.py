"""Sparse-training methods: one file each, found by its name.

``sparsejax/methods/rigl.py`` holds the function ``rigl`` and the constant ``CARD``
(`sparsejax.card.Card`), which says what becomes of the number of weights, what the
method keeps and needs, and when to choose it.
"""
