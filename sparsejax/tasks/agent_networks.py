"""The networks of an agent, each sparse in its own way, and trained in one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Num, PyTree

import sparsejax as sj
from sparsejax.building import ConfigError, build, plain
from sparsejax.nn.recording import layer_inputs
from sparsejax.tasks import sparse_network
from sparsejax.tasks.per_part import joined, only, per_part

__all__ = ["AgentNetworks", "Part", "agent_networks"]


class Part(NamedTuple):
    """One network of an agent.

    Attributes:
      role: Field of the config whose ``model`` and ``method`` go before the config's
        own: ``"actor"``, ``"critic"``.
      input_shape: Of what it sees.
      outputs: Width of its head.
    """

    role: str
    input_shape: tuple[int, ...]
    outputs: int


class AgentNetworks(NamedTuple):
    """Networks as pure functions of one tree of parameters, ``{part: parameters}``.

    Attributes:
      initialise: Maps a key to the sparse parameters and the optimizer's state.
      apply: Maps all parameters, a part's name and its inputs to its outputs.
      hidden: Maps the same to what each layer but the first sees, [samples, units].
      transformation: The methods around their optimizers, over all parts.
      module: Maps all parameters and a part's name to its network.
    """

    initialise: Callable[[Key[Array, ""]], tuple[PyTree, optax.OptState]]
    apply: Callable[[PyTree, str, Array], Array]
    hidden: Callable[[PyTree, str, Array], list[Array]]
    transformation: optax.GradientTransformationExtraArgs
    module: Callable[[PyTree, str], nnx.Module]


def agent_networks(
    config: Mapping[str, Any],
    parts: Mapping[str, Part],
    *,
    inner: optax.GradientTransformation,
    dense: Mapping[str, ArrayLike] | None = None,
) -> AgentNetworks:
    """Builds the networks that a config describes.

    ``config.model`` and ``config.method`` are those of every part; the fields of
    ``config.actor.model``, ``config.critic.method`` and so on go before them, None
    excepted, and those of ``config.encoder.method`` before both, for layers with
    convolutions. ``config.actor_share``, if set, splits the weights that the sparsity
    of ``config.method`` leaves of all parts: the actor gets that share, the others the
    rest in proportion to their size.

    Args:
      config: The config.
      parts: Name to part.
      inner: The optimizer of every part.
      dense: Further parameters to train, and what they begin with; no method has them.

    Returns:
      The networks.

    Raises:
      ConfigError: For an unknown name or argument, or a share that cannot be had.
    """
    scaling = sparse_network.initialization_of(config)
    graphs, shapes = {}, {}
    for name, part in parts.items():
        module = nnx.eval_shape(lambda part=part: _model(config, part, _some_key()))
        graphs[name], shapes[name], state = sparse_network.split(module)
        if jax.tree.leaves(state):
            raise ConfigError(
                f"config.model.name = {_fields(config, part.role, 'model')['name']!r} "
                "has state beside its parameters, such as BatchNorm's; use 'mlp', "
                "'minatar_cnn', 'nature_cnn', 'impala_cnn' or 'simba'."
            )
    no_state: dict[str, Any] = {}

    def module_of(params: PyTree, name: str) -> Any:
        return nnx.merge(graphs[name], params[name], no_state)

    def apply(
        params: PyTree, name: str, inputs: Num[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        return module_of(params, name)(inputs, train=False)

    def hidden_units(
        params: PyTree, name: str, inputs: Num[Array, "batch ..."]
    ) -> list[Float[Array, "samples units"]]:
        model = module_of(params, name)
        seen = [x for _, x in layer_inputs(model, inputs)]
        return [x.reshape(-1, x.shape[-1]) for x in seen[1:]]

    encoders = _encoders(config, shapes)

    def group_of(path: str) -> str:
        """The part, or its encoder, that a parameter trains with."""
        name, _, rest = path.partition("/")
        is_encoders = rest.partition("/")[0] in encoders.get(name, ())
        return f"{name}/encoder" if is_encoders else name

    groups = [*parts, *(f"{name}/encoder" for name in encoders)]

    def method(group: str, seed: Any, **given: Any) -> Any:
        name, _, is_encoders = group.partition("/")
        fields = _fields(config, parts[name].role, "method") | sparsities.get(name, {})
        if is_encoders:
            fields = _merged(fields, config["encoder"], "method")
        ones = jnp.ones((1, *parts[name].input_shape))

        def network(params: PyTree) -> Array:
            if encoders:
                raise ConfigError(
                    f"config.method.name = {fields['name']!r} looks at a network as a "
                    "whole, and so leaves no method to config.encoder; set "
                    "config.encoder.method to None."
                )
            return apply(params, name, ones)

        return build(
            "encoder.method" if is_encoders else "method",
            fields,
            "sparsejax.methods",
            inner,
            nested=sparse_network.NESTED,
            seed=seed,
            network=network,
            **given,
        )

    sparsities: dict[str, Any] = {}
    sparsities.update(_split_budget(config, parts, shapes, method))
    further = dict(dense or {})
    transformation = per_part(
        {group: method(group, 0) for group in groups} | dict.fromkeys(further, inner),
        group_of,
    )

    def initialise(key: Key[Array, ""]) -> tuple[PyTree, optax.OptState]:
        keys = {
            name: jax.random.split(jax.random.fold_in(key, index), 3)
            for index, name in enumerate(parts)
        }
        whole: dict[str, Any] = {
            name: sparse_network.split(_model(config, part, keys[name][0]))[1]
            for name, part in parts.items()
        }
        whole |= {name: jnp.asarray(v, jnp.float32) for name, v in further.items()}
        params, states = [whole], {}
        for group in groups:
            name, _, is_encoders = group.partition("/")
            mask_key, weight_key = keys[name][1:]
            if is_encoders:
                mask_key, weight_key = (
                    jax.random.fold_in(key, 1) for key in (mask_key, weight_key)
                )
            sparse, states[group] = sparse_network.sparse_start(
                lambda group=group, key=mask_key, **given: method(group, key, **given),
                only(group, whole, group_of),
                key=weight_key,
                initialization=scaling,
                layout=None,
            )
            params.append(sparse)
        for name in further:
            states[name] = inner.init(only(name, whole, group_of))
        return joined(params), states

    return AgentNetworks(initialise, apply, hidden_units, transformation, module_of)


def _split_budget(
    config: Mapping[str, Any],
    parts: Mapping[str, Part],
    shapes: Mapping[str, PyTree],
    method: Callable[..., Any],
) -> dict[str, dict[str, float]]:
    """The sparsity of each part, where the config splits what all of them have."""
    share = config.get("actor_share")
    if share is None:
        return {}
    sparsity = plain(config["method"]).get("sparsity")
    hidden = dict.fromkeys(parts, optax.MaskedNode())
    sizes = {}
    for name in parts:
        state = jax.eval_shape(method(name, 0).init, hidden | {name: shapes[name]})
        masks = jax.tree.leaves(sj.masks(state))
        sizes[name] = sum(math.prod(mask.shape) for mask in masks)
    where = f"config.actor_share = {share}"
    if not 0 < share < 1 or "actor" not in parts or not isinstance(sparsity, float):
        raise ConfigError(
            f"{where}: give a share in (0, 1), for an agent with an actor and a method "
            "with one sparsity; or None, for the same sparsity in every part."
        )
    budget = (1 - sparsity) * sum(sizes.values())
    rest = sum(sizes.values()) - sizes["actor"]
    found = {}
    for name, size in sizes.items():
        kept = share * budget if name == "actor" else (1 - share) * budget * size / rest
        if kept > size:
            raise ConfigError(
                f"{where} leaves {kept:,.0f} weights to {name!r}, which has "
                f"{size:,}; raise config.method.sparsity = {sparsity} or change the "
                "share."
            )
        found[name] = {"sparsity": 1 - kept / size}
    return found


def _encoders(
    config: Mapping[str, Any], shapes: Mapping[str, PyTree]
) -> dict[str, set[str]]:
    """Names of the convolutional layers of each part, where they have a method."""
    own = ((plain(config.get("encoder")) or {}).get("method")) or {}
    own = {"name": own} if isinstance(own, str) else own
    if all(value is None for value in own.values()):
        return {}
    found = {
        name: {
            layer
            for layer, tree in layers.items()
            if any(leaf.ndim > 2 for leaf in jax.tree.leaves(tree))
        }
        for name, layers in shapes.items()
    }
    found = {name: layers for name, layers in found.items() if layers}
    where = f"config.encoder.method = {own}"
    if not found:
        raise ConfigError(
            f"{where}: config.model.name = {plain(config['model'])['name']!r} has no "
            "convolutions; set config.method, or choose 'minatar_cnn', 'nature_cnn' or "
            "'impala_cnn'."
        )
    if config.get("actor_share") is not None:
        raise ConfigError(
            f"{where} and config.actor_share = {config['actor_share']}: a budget that "
            "is split leaves the encoder none of its own; set one of them to None."
        )
    return found


def _fields(config: Mapping[str, Any], role: str, field: str) -> dict[str, Any]:
    """The fields of a role before those of all."""
    common = plain(config[field])
    common = {"name": common} if isinstance(common, str) else dict(common)
    return _merged(common, config.get(role), field)


def _merged(common: Mapping[str, Any], before: Any, field: str) -> dict[str, Any]:
    """``before[field]`` before some fields, None excepted; another name begins anew."""
    own = (plain(before) or {}).get(field) or {}
    own = {"name": own} if isinstance(own, str) else own
    own = {key: value for key, value in own.items() if value is not None}
    if own.get("name", common["name"]) != common["name"]:
        kept = {"sparsity": common["sparsity"]} if "sparsity" in common else {}
        common = kept if field == "method" and own["name"] != "dense" else {}
    return {**common, **own}


def _model(config: Mapping[str, Any], part: Part, key: Key[Array, ""]) -> nnx.Module:
    return build(
        "model",
        _fields(config, part.role, "model"),
        "sparsejax.models",
        part.input_shape,
        part.outputs,
        rngs=nnx.Rngs(key),
    )


def _some_key() -> Key[Array, ""]:
    return jax.random.key(0)
