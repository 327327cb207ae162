"""Sparse-training methods: one file each, found by its name.

``sparsejax/methods/rigl.py`` holds the function ``rigl``, and says in ``BUDGET`` what
becomes of the number of weights: "fixed" from the first step on, "scheduled" (reached
at ``stop``), or "emergent". ``NEEDS_DENSE_GRADIENT = True`` says that a topology move
needs the gradient at the zeros, which training costs account for.
"""
