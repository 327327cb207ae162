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

__all__ = ["AgentNetworks", "Part", "agent_networks", "per_part"]


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
    excepted. ``config.actor_share``, if set, splits the weights that the sparsity of
    ``config.method`` leaves of all parts: the actor gets that share, the others the
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
                f"config.model.name = {_merged(config, part.role, 'model')['name']!r} "
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

    def method(name: str, seed: Any, **given: Any) -> Any:
        part = parts[name]
        ones = jnp.ones((1, *part.input_shape))
        return build(
            "method",
            _merged(config, part.role, "method") | sparsities.get(name, {}),
            "sparsejax.methods",
            inner,
            nested=sparse_network.NESTED,
            seed=seed,
            network=lambda params: apply(params, name, ones),
            **given,
        )

    sparsities: dict[str, Any] = {}
    sparsities.update(_split_budget(config, parts, shapes, method))
    further = dict(dense or {})
    transformation = per_part(
        {name: method(name, 0) for name in parts} | dict.fromkeys(further, inner)
    )

    def initialise(key: Key[Array, ""]) -> tuple[PyTree, optax.OptState]:
        params: dict[str, Any] = {}
        states: dict[str, Any] = {}
        hidden = dict.fromkeys([*parts, *further], optax.MaskedNode())
        for index, (name, part) in enumerate(parts.items()):
            keys = jax.random.split(jax.random.fold_in(key, index), 3)
            whole = sparse_network.split(_model(config, part, keys[0]))[1]
            sparse, states[name] = sparse_network.sparse_start(
                lambda name=name, key=keys[1], **given: method(name, key, **given),
                hidden | {name: whole},
                key=keys[2],
                initialization=scaling,
                layout=None,
            )
            params[name] = sparse[name]
        for name, value in further.items():
            params[name] = jnp.asarray(value, jnp.float32)
            states[name] = inner.init(hidden | {name: params[name]})
        return params, states

    return AgentNetworks(initialise, apply, hidden_units, transformation, module_of)


def per_part(
    transformations: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Gives every part of ``{part: parameters}`` a transformation of its own.

    As `optax.partition`, but ``grad_fn``, where it is given, is handed to each part as
    a function of its own parameters.

    Args:
      transformations: Part to transformation.

    Returns:
      One transformation; its state is ``{part: state}``.

    Example:
      >>> tx = per_part({"actor": sj.static(optax.sgd(1.0), sparsity=0.5),
      ...                "critic": optax.sgd(0.5)})
      >>> params = {"actor": {"kernel": jnp.ones((2, 2))}, "critic": jnp.ones(1)}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params)
      >>> updates["critic"].tolist(), sj.counts(state)
      ([-0.5], {'actor/kernel': (2, 4)})
    """
    extended = {
        name: optax.with_extra_args_support(one)
        for name, one in transformations.items()
    }

    def only(name: str, tree: PyTree) -> PyTree:
        return {part: optax.MaskedNode() for part in tree} | {name: tree[name]}

    def init_fn(params: PyTree) -> PyTree:
        return {name: one.init(only(name, params)) for name, one in extended.items()}

    def update_fn(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        new_updates, new_state = {}, {}
        for name, one in extended.items():
            if grad_fn is not None:

                def of_part(tree: PyTree, name: str = name) -> PyTree:
                    assert grad_fn is not None
                    return only(name, grad_fn({**params, name: tree[name]}))

                extra = {**extra, "grad_fn": of_part}
            found: Any
            found, new_state[name] = one.update(
                only(name, updates), state[name], only(name, params), **extra
            )
            new_updates[name] = found[name]
        return new_updates, new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


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


def _merged(config: Mapping[str, Any], role: str, field: str) -> dict[str, Any]:
    """The fields of a role before those of all; another name begins anew."""
    common = plain(config[field])
    common = {"name": common} if isinstance(common, str) else dict(common)
    own = (plain(config.get(role)) or {}).get(field) or {}
    own = {"name": own} if isinstance(own, str) else own
    own = {key: value for key, value in own.items() if value is not None}
    if own.get("name", common["name"]) != common["name"]:
        kept = {"sparsity": common["sparsity"]} if "sparsity" in common else {}
        common = kept if field == "method" and own["name"] != "dense" else {}
    return {**common, **own}


def _model(config: Mapping[str, Any], part: Part, key: Key[Array, ""]) -> nnx.Module:
    return build(
        "model",
        _merged(config, part.role, "model"),
        "sparsejax.models",
        part.input_shape,
        part.outputs,
        rngs=nnx.Rngs(key),
    )


def _some_key() -> Key[Array, ""]:
    return jax.random.key(0)
