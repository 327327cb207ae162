"""Whole networks, compressed for inference, against dense ones on CPU.

MobileNetV1 and ResNet-50 with random weights, of which a part is kept, and the
statistics of a batch in their normalisations. Dense are the same network as it is
written; its best form for XLA (normalisations folded, 1x1 convolutions as products,
depthwise ones as shifted sums); and, where they are installed, PyTorch and onnxruntime,
folded too. What all of them compute is compared, then they take turns, so that a noisy
machine slows all. Ratios are those of 10th percentiles.

    python scripts/bench_compressed_vision.py                # about ten minutes
    python scripts/bench_compressed_vision.py --models mobilenet_v1 --sparsities 0.9

onnxruntime is timed where it and `onnx` can be imported, PyTorch where `torch` can.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sparsejax_kernels.timing import interleaved

import sparsejax as sj
from sparsejax.models.mobilenet_v1 import mobilenet_v1
from sparsejax.models.resnet import resnet
from sparsejax.nn.convolutions import is_depthwise, pair
from sparsejax.nn.folding import fold
from sparsejax.nn.following import followers
from sparsejax.nn.surgery import modules

MODELS = {
    "mobilenet_v1": mobilenet_v1,
    "resnet50": functools.partial(resnet, depth=50, zero_initialised_scale=False),
}
CLASSES = 1000


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=[*MODELS])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--side", type=int, default=224, help="pixels of an image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="per contender")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all times")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, jax {jax.__version__}, batch {options.batch}")
    rows = []
    for name in options.models:
        rows += compare(name, options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def compare(name, options):
    """Prints the times of one network, all contenders of it in one run."""
    shape = (options.side, options.side, 3)
    x = jax.random.normal(jax.random.key(1), (options.batch, *shape))
    contenders = {}
    for sparsity in options.sparsities:
        model, state = sparse_network(MODELS[name], shape, sparsity)
        expected = np.asarray(called(model)(x))
        fast = sj.compress(model, state, inputs=x, inference=True, batch=options.batch)
        contenders[f"sparsejax {100 * sparsity:g} %"] = jitted(fast, x, expected, 1e-4)
    # Zeros cost a dense product what other numbers cost it.
    contenders["XLA as written"] = jitted(model, x, expected, 1e-4)
    contenders |= dense_contenders(name, model, x, expected)
    print(f"{name}, {options.side}x{options.side}: all outputs agree", flush=True)
    times = interleaved(contenders, seconds=options.seconds, block=1e-2)
    ours = {label: each for label, each in times.items() if "sparsejax" in label}
    for label, each in times.items():
        ratios = ", ".join(f"{each.p10 / fast.p10:.2f}x" for fast in ours.values())
        print(
            f"  {label:20s} {1e3 * each.p10:8.2f} ms (median {1e3 * each.median:.2f}, "
            f"{100 * (each.median / each.p10 - 1):.0f} % above); {ratios} the time of "
            f"{', '.join(ours)}"
        )
    return [
        {
            "model": name,
            "side": options.side,
            "batch": options.batch,
            "contender": label,
            "median_ms": 1e3 * each.median,
            "p10_ms": 1e3 * each.p10,
        }
        for label, each in times.items()
    ]


def sparse_network(build, shape, sparsity):
    """The network with exact zeros, in evaluation mode, and the masks' state."""
    model = build(shape, CLASSES, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = sj.static(
        optax.sgd(0.1),
        # The first convolution stays dense, as published.
        sparsity={r"^(?!stem).*kernel": sparsity},
        distribution=sj.uniform(),
    )
    state = tx.init(params)
    nnx.update(model, sj.sparsify(params, state))
    for _, module in modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
    images = jax.random.normal(jax.random.key(2), (4, *shape))
    definition, variables = nnx.split(model)

    @jax.jit
    def seen(variables):
        model = nnx.merge(definition, variables)
        model(images, True)
        return nnx.state(model)

    return nnx.merge(definition, seen(variables)), state


def called(model):
    """A jitted call of a model, its arrays being constants.

    As arguments of the call they would cost a tenth of a compressed network's time:
    Python takes an `nnx.State` apart each time.
    """
    run = jax.jit(lambda x: model(x))
    return lambda x: run(x).block_until_ready()


def jitted(model, x, expected, tolerance):
    return checked(functools.partial(called(model), x), expected, tolerance)


def checked(run, expected, tolerance):
    """The contender, once it has shown that it computes what it should."""
    error = np.abs(np.asarray(run()) - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"an output differs by {error:.1e} of the largest"
    return run


def dense_contenders(name, model, x, expected):
    """The folded network in its best form for each of the dense libraries."""
    copy = nnx.clone(model)
    paths = [path for path, layer in modules(copy) if hasattr(layer, "kernel")]
    folded = fold(copy, followers(copy, x, paths))
    network = {"mobilenet_v1": mobilenet, "resnet50": residual_network}[name]
    weights = {
        path: (np.asarray(layer.kernel), np.asarray(layer.bias))
        for path, layer in modules(folded)
        if hasattr(layer, "kernel")
    }
    describe = functools.partial(network, dict(modules(folded)))
    found = {}
    constants = jax.device_put(weights)
    run = jax.jit(lambda x: describe(XLA(constants), x))
    found["XLA, its best form"] = lambda: run(x).block_until_ready()
    images = np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2))
    if importlib.util.find_spec("torch"):
        found["PyTorch"] = torch_contender(describe, weights, images)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found["onnxruntime"] = onnx_contender(describe, weights, images)
    return {
        label: checked(contender, expected, 1e-3) for label, contender in found.items()
    }


def mobilenet(layers, library, x):
    """MobileNetV1 in the words of a library."""
    x = library.convolution(x, "stem", layers, relu=True)
    for index in range(13):
        x = library.convolution(x, f"block{index}/depthwise", layers, relu=True)
        x = library.convolution(x, f"block{index}/pointwise", layers, relu=True)
    return library.head(x, "head")


def residual_network(layers, library, x):
    """ResNet-50 in the words of a library."""
    x = library.convolution(x, "stem/conv", layers, relu=True)
    x = library.pool(x)
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in (f"stage{stage}/block{index}" for index in range(blocks)):
            y = library.convolution(x, f"{block}/conv1", layers, relu=True)
            y = library.convolution(y, f"{block}/conv2", layers, relu=True)
            y = library.convolution(y, f"{block}/conv3", layers, relu=False)
            if f"{block}/shortcut" in layers:
                x = library.convolution(x, f"{block}/shortcut", layers, relu=False)
            x = library.add(x, y)
    return library.head(x, "head")


def settings(layer, kernel):
    """Stride, padding on all sides, and groups of a convolution."""
    stride = layer.stride if hasattr(layer, "stride") else pair(layer.strides)[0]
    return stride, kernel.shape[0] // 2, kernel.shape[3] if is_depthwise(layer) else 1


class XLA:
    """What XLA runs fastest on CPU, of images with their channels last."""

    def __init__(self, weights):
        self.weights = weights

    def convolution(self, x, path, layers, *, relu):
        kernel, bias = self.weights[path]
        stride, padding, groups = settings(layers[path], kernel)
        if kernel.shape[:2] == (1, 1):
            y = x[:, ::stride, ::stride] @ kernel[0, 0]
        elif groups > 1:
            height, width = x.shape[1:3]
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            y = sum(
                x[:, row : row + height : stride, column : column + width : stride]
                * kernel[row, column, 0]
                for row in range(3)
                for column in range(3)
            )
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (stride, stride),
                ((padding, padding),) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return jax.nn.relu(y + bias) if relu else y + bias

    def pool(self, x):
        return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    def add(self, x, y):
        return jax.nn.relu(x + y)

    def head(self, x, path):
        kernel, bias = self.weights[path]
        return x.mean(axis=(1, 2)) @ kernel + bias


def torch_contender(describe, weights, images):
    import torch
    from torch.nn import functional

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    last = torch.channels_last

    def tensor(array):
        found = torch.tensor(torch_order(array) if array.ndim > 1 else array)
        return found.contiguous(memory_format=last) if array.ndim == 4 else found

    tensors = {path: [*map(tensor, parts)] for path, parts in weights.items()}

    class Torch:
        def convolution(self, x, path, layers, *, relu):
            stride, padding, groups = settings(layers[path], weights[path][0])
            y = functional.conv2d(x, *tensors[path], stride, padding, groups=groups)
            return functional.relu_(y) if relu else y

        def pool(self, x):
            return functional.max_pool2d(x, 3, 2, 1)

        def add(self, x, y):
            return functional.relu_(y.add_(x))

        def head(self, x, path):
            return functional.linear(x.mean((2, 3)), *tensors[path])

    x = torch.from_numpy(images).contiguous(memory_format=last)

    def run():
        with torch.inference_mode():
            return describe(Torch(), x).numpy()

    return run


def onnx_contender(describe, weights, images):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []

    def node(kind, *inputs, **attributes):
        name = f"value{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(array, name):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def parameters(path):
        kernel, bias = weights[path]
        return (
            constant(torch_order(kernel), f"{path}/kernel"),
            constant(bias, f"{path}/bias"),
        )

    class Onnx:
        def convolution(self, x, path, layers, *, relu):
            stride, padding, groups = settings(layers[path], weights[path][0])
            y = node(
                "Conv",
                x,
                *parameters(path),
                strides=[stride] * 2,
                pads=[padding] * 4,
                group=groups,
            )
            return node("Relu", y) if relu else y

        def pool(self, x):
            return node(
                "MaxPool", x, kernel_shape=[3] * 2, strides=[2] * 2, pads=[1] * 4
            )

        def add(self, x, y):
            return node("Relu", node("Add", x, y))

        def head(self, x, path):
            x = node("Flatten", node("GlobalAveragePool", x))
            return node("Gemm", x, *parameters(path), transB=1)

    result = describe(Onnx(), "x")
    shapes = {"x": images.shape, result: (len(images), CLASSES)}
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])]
        for name in ("x", result)
    )
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Its threads spin while it computes, but not while the next contender does.
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": images})[0]


def torch_order(kernel):
    """Outputs first."""
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


if __name__ == "__main__":
    main()
