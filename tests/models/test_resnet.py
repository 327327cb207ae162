import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.layers import leaves_with_paths
from sparsejax.models.resnet import Block, Stem, resnet


def abstract(*args, **options):
    return nnx.eval_shape(lambda: resnet(*args, **options, rngs=nnx.Rngs(0)))


def shapes(model):
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {path: leaf.shape for path, leaf in leaves_with_paths(params)}


def kernels(model):
    return {k: v for k, v in shapes(model).items() if k.endswith("/kernel")}


def output_shapes(model, height, width, channels):
    """Shapes after the stem and after each stage."""
    graph, state = nnx.split(model)

    def run(state, images):
        merged = nnx.merge(graph, state)
        hidden = merged.stem(images)
        outputs = [hidden]
        for stage in (merged.stage1, merged.stage2, merged.stage3, merged.stage4):
            outputs.append(stage(outputs[-1]))
        return outputs

    images = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    return [x.shape[1:] for x in jax.eval_shape(run, state, images)]


@pytest.mark.parametrize(
    ("depth", "layers", "weights", "all_parameters"),
    # Totals: 25,557,032 and so on are what torchvision reports for these networks.
    [
        (18, 21, 11_678_912, 11_689_512),
        (34, 37, 21_779_648, 21_797_672),
        (50, 54, 25_502_912, 25_557_032),
        (101, 105, 44_442_816, 44_549_160),
    ],
)
def test_published_sizes(depth, layers, weights, all_parameters):
    model = abstract((224, 224, 3), 1000, depth=depth)
    assert len(kernels(model)) == layers
    assert sum(np.prod(shape) for shape in kernels(model).values()) == weights
    assert sum(np.prod(shape) for shape in shapes(model).values()) == all_parameters


def test_names():
    found = kernels(abstract((224, 224, 3), 1000))
    assert found["stem/conv/kernel"] == (7, 7, 3, 64)
    assert found["stage1/block0/conv1/kernel"] == (1, 1, 64, 64)
    assert found["stage1/block0/conv2/kernel"] == (3, 3, 64, 64)
    assert found["stage1/block0/shortcut/kernel"] == (1, 1, 64, 256)
    assert found["stage4/block2/conv3/kernel"] == (1, 1, 512, 2048)
    assert found["head/kernel"] == (2048, 1000)


def test_imagenet_stem_and_stages_halve_the_image_five_times():
    assert output_shapes(abstract((224, 224, 3), 1000), 224, 224, 3) == [
        (56, 56, 64),
        (56, 56, 256),
        (28, 28, 512),
        (14, 14, 1024),
        (7, 7, 2048),
    ]


def test_small_stem_keeps_the_size():
    assert output_shapes(abstract((8, 8, 1), 10, stem="small"), 8, 8, 1) == [
        (8, 8, 64),
        (8, 8, 256),
        (4, 4, 512),
        (2, 2, 1024),
        (1, 1, 2048),
    ]


def test_the_stride_is_on_the_3x3_convolution():
    block = abstract((224, 224, 3), 1000).stage2.block0
    strides = [block.conv1.strides, block.conv2.strides, block.conv3.strides]
    assert [np.max(stride) for stride in strides] == [1, 2, 1]


BASIC = ((3, 1, True), (3, 1, False))


def make_block(stride=1, zero_scale=True):
    return Block(
        4,
        4,
        BASIC,
        stride,
        zero_scale=zero_scale,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 8, 8, 4))


@pytest.mark.parametrize("zero", [True, False])
def test_only_the_last_scale_of_a_block_may_start_at_zero(zero):
    block = make_block(stride=2, zero_scale=zero)
    assert bool((block.norm2.scale[...] == (0 if zero else 1)).all())
    assert bool((block.norm1.scale[...] == 1).all())
    assert bool((block.shortcut_norm.scale[...] == 1).all())


@pytest.mark.parametrize("zero", [True, False])
def test_the_option_reaches_every_block(zero):
    def last_scales():
        model = resnet(
            (8, 8, 1),
            10,
            depth=18,
            width=1,
            zero_initialised_scale=zero,
            rngs=nnx.Rngs(0),
        )
        stages = (model.stage1, model.stage2, model.stage3, model.stage4)
        blocks = [block for s in stages for block in (s.block0, s.block1)]
        return jnp.concatenate([block.norm2.scale[...] for block in blocks])

    assert bool((jax.jit(last_scales)() == (0 if zero else 1)).all())


def test_zero_scale_makes_a_block_the_identity(images):
    inputs = jax.nn.relu(images)
    np.testing.assert_array_equal(make_block()(inputs, train=True), inputs)


def test_running_statistics_move_in_training_only_and_by_a_tenth(images):
    stem = Stem(4, 4, "small", dtype=jnp.float32, rngs=nnx.Rngs(0))
    hidden = stem.conv(images)
    before = np.asarray(stem.norm.mean[...])
    stem(images, train=False)
    np.testing.assert_array_equal(stem.norm.mean[...], before)
    stem(images, train=True)
    expected = 0.9 * before + 0.1 * np.asarray(hidden.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(stem.norm.mean[...], expected, atol=1e-6)


def test_bfloat16_keeps_float32_parameters_statistics_and_logits():
    graph, state = nnx.split(
        abstract((8, 8, 1), 10, depth=18, stem="small", dtype="bfloat16")
    )

    def run(state, images):
        model = nnx.merge(graph, state)
        convolved = model.stem.conv(images)
        logits = model(images, train=True)
        return convolved, logits, nnx.state(model)

    images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    convolved, logits, new_state = jax.eval_shape(run, state, images)
    assert convolved.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(new_state)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth = 20: use one of 18, 34, 50, 101, 152"),
        ({"stem": "cifar"}, "stem = 'cifar': use one of 'imagenet', 'small'"),
        ({"width": 0}, "width = 0: use a number above 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        resnet((8, 8, 1), 10, rngs=nnx.Rngs(0), **options)


def test_inputs_that_are_no_images_are_rejected():
    with pytest.raises(ValueError, match=r"input_shape = \(64,\) is not"):
        resnet((64,), 10, rngs=nnx.Rngs(0))
