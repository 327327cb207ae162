import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.layers import leaves_with_paths
from sparsejax.models.wide_resnet import PreactivationBlock, wide_resnet


def abstract(*args, **options):
    return nnx.eval_shape(lambda: wide_resnet(*args, **options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    # Zagoruyko and Komodakis, 2016, tables 4 and 5.
    [(40, 1, 0.6), (40, 2, 2.2), (22, 8, 17.2), (28, 10, 36.5), (28, 12, 52.5)],
)
def test_published_sizes(depth, width, millions):
    model = abstract((32, 32, 3), 10, depth=depth, width=width)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    size = sum(np.prod(leaf.shape) for _, leaf in leaves_with_paths(params))
    assert round(size / 1e6, 1) == millions


def test_stages_halve_the_image_twice():
    graph, state = nnx.split(abstract((32, 32, 3), 10))

    def run(state, images):
        model = nnx.merge(graph, state)
        hidden, sides = model.stem(images), []
        for stage in range(1, 4):
            for index in range(3):
                hidden = getattr(model, f"stage{stage}_block{index}")(hidden)
            sides.append(hidden)
        return sides, model(images)

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    sides, logits = jax.eval_shape(run, state, images)
    assert [x.shape[1:] for x in sides] == [(32, 32, 32), (16, 16, 64), (8, 8, 128)]
    assert logits.shape == (2, 10)


def test_the_shortcut_reads_what_is_normalised():
    block = PreactivationBlock(4, 6, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    block.conv2.kernel.set_value(jnp.zeros((3, 3, 6, 6)))
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    active = jax.nn.relu(block.norm1(images, use_running_average=True))
    np.testing.assert_allclose(block(images), block.shortcut(active), atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="depth = 20: use 6 n"):
        wide_resnet((8, 8, 1), 10, depth=20, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"input_shape = \(64,\) is not"):
        wide_resnet((64,), 10, rngs=nnx.Rngs(0))
