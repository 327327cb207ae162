"""Model families as Flax NNX modules: one file per family, one function per file.

Every function builds an ``nnx.Module`` that is called as ``model(inputs, train)``. Its
first two arguments are the shape of one input and the number of classes; ``rngs`` is
the ``nnx.Rngs`` that the initialisation draws from.
"""

from sparsejax.extras import require

require("flax", extra="train")
