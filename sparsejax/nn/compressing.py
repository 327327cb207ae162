"""Module surgery: masked layers become compressed ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, PyTree
from sparsejax_kernels import NM, Block, FanIn, Packed, TwoFour, largest_density
from sparsejax_kernels.choosing import pays_to_pack

from sparsejax.layers import leaves_with_paths
from sparsejax.nn.convolutions import (
    convolution_twin,
    depthwise_twin,
    is_convolution,
    is_depthwise,
)
from sparsejax.nn.folding import fold
from sparsejax.nn.following import followers
from sparsejax.nn.layers import (
    BlockLinear,
    CompressedLinear,
    FanInLinear,
    FanInPointwise,
    NMLinear,
)
from sparsejax.nn.neurons import without_idle_neurons
from sparsejax.nn.rectifying import Rectified
from sparsejax.nn.surgery import is_pointwise, modules, put
from sparsejax.state import masks as masks_of
from sparsejax.state import unpack_all

__all__ = ["compress"]

GROUPS = ((2, 4), (1, 4), (1, 8), *((n, 32) for n in range(1, 9)))
"""N:M patterns that are stored as such, those of smaller groups first."""
BLOCKS = ((32, 32), (16, 16), (8, 8))
"""Blocks that are stored as such, the largest first."""
Pattern = tuple[type[Block] | type[NM], dict[str, Any]]
LINEAR = {
    Block: BlockLinear,
    FanIn: FanInLinear,
    NM: NMLinear,
    TwoFour: NMLinear,
}


def compress(
    model: nnx.Module,
    state: PyTree,
    *,
    trainable: bool = False,
    batch: int | None = None,
    inputs: PyTree | None = None,
    inference: bool = False,
    implementation: str | None = None,
) -> nnx.Module:
    """A copy of a model whose masked linear layers are stored and run compressed.

    Every `nnx.Linear` with a masked kernel is replaced: by a `BlockLinear` where its
    mask has whole blocks of 32x32, 16x16 or 8x8; by an `NMLinear`, packed on CPUs,
    where it is 2:4, 1:4, 1:8 or N:32 with as many weights as that allows (and it is not
    to be trained); else by a `FanInLinear`, which any mask fits. Every `nnx.Conv` with
    1x1 kernels is replaced by a `FanInPointwise`. The function stays the same, to
    rounding. Kept weights that are zero stay kept. All other layers stay as they are,
    those whose masks keep every weight, too.

    With ``inference`` a whole network of convolutions becomes one that only predicts:
    its normalisations by stored statistics become part of the layers before them, the
    ReLUs behind those are computed with the layers' sums, convolutions of all windows
    become `FanInConvolution`, and 3x3 depthwise ones, masked or not, a
    `DepthwiseConvolution`, so that on CPU images stay channel-first in memory from the
    first convolution to the last.

    Args:
      model: with the trained (sparse) parameters; it is not changed.
      state: the optimizer's state, whose masks say which weights are kept; or the masks
        themselves, a tree like the parameters of bool arrays, None at dense leaves.
      trainable: whether to store the transposed index that a backward pass needs, six
        to eight bytes a weight; without it every backward pass makes its own.
      batch: rows that are multiplied at once; layers for which a dense product is
        faster at this batch then stay dense (`sparsejax_kernels.largest_density`). For
        up to 4 rows on a CPU with AVX-512, and if all that the model reads fits the
        caches, linear layers are packed (`sparsejax_kernels.Packed`), in which order
        they are about twice as fast, and somewhat slower at larger batches; one of
        whose weights none is left for the rest is then an `NMLinear`, of N:32. Default:
        every masked layer is compressed.
      inputs: real data that the model is called with, as ``model(inputs)``. Neurons
        without any input, such as those that `sparsejax.srigl` ablates, and neurons
        that nothing reads are then removed, from their layer, from biases and
        normalisations behind it and from the layers that read it; what they contribute
        becomes part of the readers' biases. Only layers are narrowed that are read by
        linear layers and 1x1 convolutions alone; with ``inference`` by convolutions of
        other windows, too, to which a neuron without inputs has to say zero. The model
        has to be in evaluation mode (``model.eval()``), since statistics of a batch are
        none of its constants.
        Default: all neurons stay.
      inference: whether the model is only to predict. Needs ``inputs``, and a model in
        evaluation mode. Call what is returned under `jax.jit`, its weights as
        constants: ``predict = jax.jit(lambda x: fast(x))``. As arguments they would be
        taken apart by Python at every call, a tenth of the time of a MobileNet.
      implementation: of the products, see `sparsejax_kernels.matmul`; default: the best
        that runs here.

    Returns:
      The compressed model; ``nnx.Param`` holds its values, `sparsejax.nn.Indices` the
      topology. With ``inference`` it is inside of a `sparsejax.nn.Rectified`.

    Raises:
      ValueError: ``state`` has neither a sparsejax method nor masks; no linear layer
        has a mask; a masked weight of one is not zero; a
        kernel and its mask differ in shape; or, with ``inference``, there are no
        ``inputs``, the model is to be trainable or normalises by a batch's statistics.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(nnx.Linear(8, 16, rngs=rngs), nnx.relu,
      ...                        nnx.Linear(16, 4, rngs=rngs))
      >>> params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
      >>> state = sj.static(optax.sgd(0.1), sparsity=0.75).init(params)
      >>> nnx.update(model, sj.sparsify(params, state))
      >>> fast = sj.compress(model, state)
      >>> x = jnp.ones((2, 8))
      >>> bool(jnp.allclose(fast(x), model(x), atol=1e-5))
      True
    """
    if inference and (trainable or inputs is None):
        raise ValueError(
            f"inference is True, trainable {trainable} and inputs "
            f"{'None' if inputs is None else 'given'}: a network for inference is not "
            "trainable, and needs `inputs` that it may be called with"
        )
    masks = _masks(state)
    copy = nnx.clone(model)

    def fits(layer):
        return replaceable(layer) or (inference and is_convolution(layer))

    for path, layer in modules(copy):
        if fits(layer) and (mask := masks.get(_kernel(path))) is not None:
            _check(path, layer, mask)
    if inputs is not None:
        copy, masks = _narrowed(copy, masks, inputs, trainable, fits)
    made, weights, masked, next_ones = {}, {}, [], {}
    if inference:
        paths = [p for p, layer in modules(copy) if fits(layer) or is_depthwise(layer)]
        next_ones = followers(copy, inputs, paths)
        copy = fold(copy, next_ones)
    layers = {path: layer for path, layer in modules(copy) if fits(layer)}

    def options(path):
        rectified = path in next_ones and next_ones[path].rectified
        activation = "relu" if rectified else None
        return {"activation": activation, "implementation": implementation}

    for path, layer in layers.items():
        mask = masks.get(_kernel(path))
        masked += [path] if mask is not None else []
        if inference and is_convolution(layer):
            if mask is None:
                mask = jnp.ones(layer.kernel.get_value().shape, bool)
            made[path] = convolution_twin(layer, _weight(layer, mask), **options(path))
        elif mask is not None and not bool(mask.all()):
            weights[path] = _weight(layer, mask, trainable)
    if batch is not None:
        before = [layers[path].kernel for path in (*made, *weights)]
        elsewhere = _bytes(copy) + _bytes(made) - _bytes(before)
        weights = _for_batch(layers, weights, batch, elsewhere)
    for path, weight in weights.items():
        made[path] = replacement(layers[path], weight, **options(path))
    if not masked:
        raise ValueError(
            "no linear layer of the model has a mask in `state`: the masks are of "
            f"{', '.join(masks) or 'nothing'}, the layers that can be compressed are "
            f"{', '.join(layers) or 'none'}; compress the model that was trained with "
            "this state"
        )
    if not inference:
        return put(copy, made)
    for path, layer in modules(copy):
        if is_depthwise(layer):
            made[path] = depthwise_twin(layer, **options(path))
    return Rectified(put(copy, made))


def _masks(state: PyTree) -> dict[str, Bool[Array, "..."]]:
    """Masks by path, of a tree of masks or of an optimizer's state."""
    named = leaves_with_paths(unpack_all(state))
    if not named or any(leaf.dtype != bool for _, leaf in named):
        named = leaves_with_paths(masks_of(state))
    return dict(named)


def _kernel(path: str) -> str:
    return f"{path}/kernel" if path else "kernel"


def _narrowed(model, masks, inputs, trainable, fits):
    """The model without idle neurons; layers of whole patterns keep their shapes."""
    layers = []
    for path, layer in modules(model):
        mask = masks.get(_kernel(path))
        if fits(layer) and (
            mask is None or not mask.any() or not _pattern(layer, mask, trainable)
        ):
            layers.append(path)
    return without_idle_neurons(model, masks, inputs, layers)


def replaceable(layer: Any) -> bool:
    """Whether a layer is a product over its input's last axis."""
    return isinstance(layer, nnx.Linear) or is_pointwise(layer)


def replacement(
    layer: Any,
    weight: Block | FanIn | NM | Packed | TwoFour,
    **options: Any,
) -> CompressedLinear:
    """The compressed twin of a layer."""
    bias = None if layer.bias is None else layer.bias.get_value()
    options["dtype"] = layer.dtype
    if isinstance(layer, nnx.Conv):
        assert isinstance(weight, FanIn)
        spatial = len(layer.kernel_size)
        given = 1 if layer.strides is None else layer.strides
        strides = (given,) * spatial if isinstance(given, int) else given
        return FanInPointwise(weight, bias, strides=strides, **options)
    if isinstance(weight, Packed):
        kind = FanInLinear if weight.depth else NMLinear
    else:
        kind = LINEAR[type(weight)]
    return kind(weight, bias, **options)


def _check(path: str, layer: Any, mask: Bool[Array, "..."]) -> None:
    kernel = layer.kernel.get_value()
    if mask.shape != kernel.shape:
        raise ValueError(
            f"the mask of {path}/kernel has shape {mask.shape}, its kernel "
            f"{kernel.shape}; compress the model that was trained with this state"
        )
    if bool(jnp.any(jnp.where(mask, jnp.zeros_like(kernel), kernel) != 0)):
        raise ValueError(
            f"{path}/kernel is not zero outside its mask; sj.verify(params, state) may "
            "say why, sj.apply_masks(params, state) zeroes it"
        )


def _pattern(layer: Any, mask: Bool[Array, "..."], trainable: bool) -> Pattern | None:
    """The format, and its options, of a mask with a regular pattern."""
    if not isinstance(layer, nnx.Linear):
        return None
    flat = np.asarray(mask)
    for block in BLOCKS:
        if _is_of_blocks(flat, block):
            return Block, {"block": block}
    for n, m in () if trainable else GROUPS:
        if _is_full(flat, n, m):
            return NM, {"n": n, "m": m}
    return None


def _weight(layer: Any, mask: Bool[Array, "..."], trainable: bool = False) -> Any:
    """Of any format; a FanIn for convolutions."""
    kernel = layer.kernel.get_value()
    shape = (-1, kernel.shape[-1])
    kernel, mask = kernel.reshape(shape), mask.reshape(shape)
    form, options = _pattern(layer, mask, trainable) or (FanIn, {})
    weight = form.fromdense(kernel, mask, **options)
    if isinstance(weight, NM):
        # The order in which CPUs read it; kernels for others take it as it is.
        return weight.packed() if jax.default_backend() == "cpu" else weight
    return (
        weight.with_transpose() if trainable and isinstance(weight, FanIn) else weight
    )


def _for_batch(
    layers: dict[str, Any], weights: dict[str, Any], batch: int, elsewhere: int
) -> dict[str, Any]:
    """The weights as they are fastest at a batch, without those that are so densely.

    Args:
      elsewhere: bytes of what else the model reads.
    """
    packable = {
        path
        for path, weight in weights.items()
        if isinstance(layers[path], nnx.Linear)
        and isinstance(weight, FanIn)
        and weight.transposed is None
    }

    def faster(packed):
        found = {}
        for path, weight in weights.items():
            kind = Packed if path in packed else type(weight)
            if weight.density <= largest_density(batch, kind.__name__):
                found[path] = weight
        return found

    found = faster(packable)
    dense = [layers[path].kernel for path in weights if path not in found]
    if not pays_to_pack(batch, elsewhere + _bytes([found, dense])):
        return faster(())
    return {
        path: Packed.from_fan_in(weight) if path in packable else weight
        for path, weight in found.items()
    }


def _bytes(tree: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _is_full(mask: np.ndarray, n: int, m: int) -> bool:
    """Whether every whole group of m inputs keeps n weights, the last no more."""
    groups = -(-len(mask) // m)
    padded = np.pad(mask, ((0, groups * m - len(mask)), (0, 0)))
    counts = padded.reshape(groups, m, -1).sum(axis=1)
    whole = len(mask) // m
    full = (counts[:whole] == n).all() and (counts[whole:] <= n).all()
    return whole > 0 and bool(full)


def _is_of_blocks(mask: np.ndarray, block: tuple[int, int]) -> bool:
    """Whether all blocks are whole or empty, without much padding at the edges."""
    tops = np.arange(0, mask.shape[0], block[0])
    lefts = np.arange(0, mask.shape[1], block[1])

    def sums(array):
        return np.add.reduceat(np.add.reduceat(array, tops, axis=0), lefts, axis=1)

    kept, sizes = sums(mask.astype(np.int64)), sums(np.ones(mask.shape, np.int64))
    whole = bool(((kept == 0) | (kept == sizes)).all())
    stored = np.count_nonzero(kept) * block[0] * block[1]
    return whole and stored <= 1.25 * kept.sum()
