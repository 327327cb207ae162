"""Mixup and CutMix: batches in which every image is mixed with another one."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sparsejax.building import ConfigError


def mixed(
    key: Key[Array, ""],
    images: Float[Array, "batch h w c"],
    targets: Float[Array, "batch classes"],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Float[Array, "batch h w c"], Float[Array, "batch classes"]]:
    """Mixes every image of a batch, and its target, with another one's.

    Mixup: ``share * image + (1 - share) * partner``. CutMix: a rectangle of ``1 -
    share`` of the area is the partner's; where it would reach beyond the image it is
    cut off, and the share grows. The target is ``share * target + (1 - share) *
    partner's target``. The share is drawn from Beta(alpha, alpha), once a batch, and
    partners from all permutations, so that some images may be their own. With both,
    either is used for half of the batches.

    Args:
      key: Draws everything.
      images: The batch.
      targets: Probabilities of the classes.
      mixup: Alpha of mixup; 0, the default, is off. The authors use 0.2 on ImageNet, 1
        on CIFAR.
      cutmix: Alpha of CutMix; 0, the default, is off. The authors use 1.

    Returns:
      Images and targets.

    Example:
      >>> images = jnp.arange(2.0).reshape(2, 1, 1, 1)
      >>> both = mixed(jax.random.key(1), images, jnp.eye(2), mixup=1.0)
      >>> # Class 1 has the white pixel: its probability is how bright the mixture is.
      >>> bool(jnp.allclose(both[0][:, 0, 0, 0], both[1][:, 1]))
      True

    References:
      Zhang et al., "mixup: beyond empirical risk minimization", 2018; Yun et al.,
      "CutMix: regularization strategy to train strong classifiers with localizable
      features", 2019.
    """
    if not mixup and not cutmix:
        return images, targets
    partner_key, share_key, box_key, choice_key = jax.random.split(key, 4)
    partners = jax.random.permutation(partner_key, len(images))
    height, width = images.shape[1:3]
    share, own = jnp.ones(()), jnp.ones((height, width, 1))
    if mixup:
        share = jax.random.beta(share_key, mixup, mixup)
        own = jnp.full((height, width, 1), share)
    if cutmix:
        cut = jax.random.beta(share_key, cutmix, cutmix)
        outside = _outside_of_box(box_key, (height, width), 1 - cut)[..., None]
        # Where there is no mixup it is always CutMix.
        uses_cutmix = jax.random.bernoulli(choice_key) if mixup else jnp.array(True)
        share = jnp.where(uses_cutmix, outside.mean(), share)
        own = jnp.where(uses_cutmix, outside, own)
    own = own.astype(images.dtype)
    return (
        own * images + (1 - own) * images[partners],
        share * targets + (1 - share) * targets[partners],
    )


def strengths(config: Mapping[str, Any]) -> dict[str, float]:
    """Reads ``config.mixup`` and ``config.cutmix``.

    Args:
      config: The config; where a field is missing it is 0.

    Returns:
      The arguments of :func:`mixed`.

    Raises:
      ConfigError: Unless they are finite numbers that are not negative.

    Example:
      >>> strengths({"mixup": 0.2})
      {'mixup': 0.2, 'cutmix': 0.0}
    """
    found = {}
    for name, usual in (("mixup", 0.2), ("cutmix", 1)):
        value: Any = config.get(name, 0.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise ConfigError(
                f"config.{name} = {value!r} is not a finite number >= 0; use 0 for "
                f"none, or {usual}."
            )
        found[name] = float(value)
    return found


def _outside_of_box(
    key: Key[Array, ""], size: tuple[int, int], area: Float[Array, ""]
) -> Float[Array, "h w"]:
    """1 outside a random box of a share of the area, 0 inside."""
    inside = []
    for axis, axis_key in zip(size, jax.random.split(key), strict=True):
        half = (jnp.sqrt(area) * axis).astype(jnp.int32) // 2
        centre = jax.random.randint(axis_key, (), 0, axis)
        positions = jnp.arange(axis)
        inside.append((positions >= centre - half) & (positions < centre + half))
    rows, columns = inside
    return 1.0 - (rows[:, None] & columns[None, :])
