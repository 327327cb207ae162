"""Transformers whose matrices are stored and run compressed."""

from __future__ import annotations

from jaxtyping import PyTree

from sparsejax.models.stacking import unstacked
from sparsejax.models.transformer import Transformer
from sparsejax.nn.compressing import compress
from sparsejax.state import masks as masks_of
from sparsejax.state import unpack_all

__all__ = ["compressed"]


def compressed(
    model: Transformer,
    masks: PyTree,
    *,
    batch: int | None = None,
    implementation: str | None = None,
) -> Transformer:
    """A transformer of the same function, to rounding, whose zeros cost nothing.

    Its blocks are listed, and their matrices compressed as by `sparsejax.compress`. To
    store it, use `sparsejax.save`; `sparsejax.load` wants ``model.unscanned()``.

    Args:
      model: with trained (sparse) parameters, scanned or not; it is not changed.
      masks: of its parameters, as `sparsejax.masks` returns them or in an optimizer's
        state, scanned or not.
      batch: sequences that are decoded at once, for which matrices are then stored as
        is fastest, see `sparsejax.compress`; default: as is fast for any number.
      implementation: of the products, see `sparsejax_kernels.matmul`; default: the best
        that runs here.

    Returns:
      The transformer to decode with.

    Raises:
      ValueError: as `sparsejax.compress`.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> from flax import nnx
      >>> from sparsejax.models.transformer import transformer
      >>> model = transformer((16,), 257, layers=2, width=32, rngs=nnx.Rngs(0))
      >>> params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.8, layout=model.layout)
      >>> state = tx.init(params)
      >>> nnx.update(model, sj.sparsify(params, state))
      >>> fast = compressed(model, state)
      >>> tokens = jnp.arange(4)[None]
      >>> bool(jnp.allclose(fast(tokens), model(tokens), atol=1e-5))
      True
    """
    if not isinstance(masks, dict):
        masks = masks_of(masks)
    masks = unstacked(unpack_all(masks))
    made = compress(
        model.unscanned(), masks, batch=batch, implementation=implementation
    )
    assert isinstance(made, Transformer)
    return made
