"""Files, settings and what is refused of both; needs neither torch nor transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sparsejax import hugging_face
from sparsejax.hugging_face.names import source_of
from sparsejax.models.transformer import transformer

LLAMA = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 32,
}
OPTIONS = {"layers": 2, "width": 16, "heads": 2, "hidden": 24}
GPT2_OPTIONS = {
    "gated": False,
    "activation": "gelu_tanh",
    "normalisation": "layer",
    "positions": "learned",
    "input_bias": True,
    "bias": True,
    "key_value_heads": 2,
}


def model(seed=0, **options):
    """A network of random numbers, which nothing was compiled for."""
    made = nnx.eval_shape(
        lambda: transformer((32,), 50, rngs=nnx.Rngs(0), **{**OPTIONS, **options})
    )
    random = np.random.default_rng(seed)

    def drawn(leaf):
        return jnp.asarray(random.normal(size=leaf.shape), jnp.float32)

    return nnx.merge(nnx.graphdef(made), jax.tree.map(drawn, nnx.state(made)))


def leaves(network):
    return dict(nnx.to_flat_state(nnx.state(network)))


@pytest.fixture
def folder(tmp_path):
    hugging_face.save(tmp_path / "checkpoint", model(), eos_token_id=3)
    return tmp_path / "checkpoint"


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("options", [{}, {"tied": False}, GPT2_OPTIONS])
def test_what_was_written_is_read(tmp_path, options, layers, scanned):
    before = model(layers=layers, scanned=scanned, **options)
    hugging_face.save(tmp_path, before)
    after = hugging_face.load(tmp_path, scanned=scanned)
    assert after.shape == before.shape
    assert jax.tree.structure(nnx.state(after)) == jax.tree.structure(nnx.state(before))
    for path, leaf in leaves(before).items():
        np.testing.assert_array_equal(leaf, leaves(after)[path], err_msg=str(path))
    other = hugging_face.load(tmp_path, scanned=not scanned)
    hugging_face.save(tmp_path / "other", other, like=tmp_path)
    one, two = (
        load_file(f / "model.safetensors") for f in (tmp_path, tmp_path / "other")
    )
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_parts_are_as_large_as_they_may_be(tmp_path):
    hugging_face.save(tmp_path, model(), shard_bytes=4000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and not list(tmp_path.glob("*.partial"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for file in files:
        tensors = load_file(file)
        assert len(tensors) == 1 or sum(x.nbytes for x in tensors.values()) <= 4000
        assert all(index["weight_map"][name] == file.name for name in tensors)
    assert index["metadata"]["total_size"] == sum(
        leaf.size * 4 for leaf in leaves(model()).values()
    )
    # Written again as one file, nothing of the parts is left.
    hugging_face.save(tmp_path, model(1))
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
    }


def test_the_type_of_the_tensors(tmp_path):
    hugging_face.save(tmp_path, model(), dtype="bfloat16")
    assert (
        json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    )
    tensors = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype.name for tensor in tensors.values()} == {"bfloat16"}
    read = hugging_face.load(tmp_path, dtype="bfloat16", parameter_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in leaves(read).values()} == {"bfloat16"}
    assert read(jnp.zeros((1, 4), jnp.int32)).dtype == jnp.float32


def test_a_copy_has_the_tokenizer_and_the_settings(folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    change(folder, attention_dropout=0.5)
    hugging_face.save(tmp_path / "copy", hugging_face.load(folder), like=folder)
    assert (tmp_path / "copy/tokenizer.json").read_text() == "{}"
    written = json.loads((tmp_path / "copy/config.json").read_text())
    assert written == json.loads((folder / "config.json").read_text())
    assert written["eos_token_id"] == 3 and written["bos_token_id"] is None
    with pytest.raises(ValueError, match="name another folder"):
        hugging_face.save(folder, model(), like=folder)
    with pytest.raises(ValueError, match="has hidden = 24, the model 32"):
        hugging_face.save(tmp_path / "other", model(hidden=32), like=folder)


def test_old_buffers_and_a_stored_tied_head_are_ignored(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(tensors, folder / "model.safetensors")
    hugging_face.load(folder)


@pytest.mark.parametrize(
    ("settings", "fields", "message"),
    [
        (
            LLAMA,
            {"model_type": "gemma"},
            "model_type = 'gemma' is not supported; .*qwen2",
        ),
        (LLAMA, {"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu' of a llama"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias = True .* attention_bias = False"),
        (LLAMA, {"quantization_config": {}}, "quantization_config = {}"),
        (LLAMA, {"num_hidden_layers": None}, "num_hidden_layers = None"),
        (LLAMA, {"num_attention_heads": 3}, "num_attention_heads = 3 .* 16"),
        (
            LLAMA,
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling.rope_type = 'linear' .*'llama3'",
        ),
        (
            LLAMA,
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_parameters.rope_type = 'yarn'",
        ),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3"}}, "lacks factor"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (
            LLAMA,
            {"model_type": "mistral", "sliding_window": 16},
            "sliding_window = 16 .* context = 16",
        ),
        (
            LLAMA,
            {"model_type": "mistral", "max_position_embeddings": 8192},
            "sliding_window = 4096",
        ),
        (
            LLAMA,
            {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True}
            | {"max_window_layers": 1},
            "sliding_window = 16",
        ),
        (GPT2, {"activation_function": "tanh"}, "activation_function = 'tanh'"),
        (GPT2, {"scale_attn_weights": False}, "scale_attn_weights = False .* True"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "only False is supported"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention = True"),
        (GPT2, {"n_head": 3}, "n_head = 3"),
    ],
)
def test_settings_that_are_not_supported(settings, fields, message):
    hugging_face.architecture_of(settings)
    with pytest.raises(hugging_face.UnsupportedError, match=message):
        hugging_face.architecture_of({**settings, **fields})


def test_windows_that_do_not_bite():
    for fields in (
        {"model_type": "mistral"},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", "sliding_window": 16},
        {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True}
        | {"max_window_layers": 2},
        {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True}
        | {"layer_types": ["full_attention"] * 2},
    ):
        assert hugging_face.architecture_of({**LLAMA, **fields}).context == 32
    with pytest.raises(hugging_face.UnsupportedError, match="context = 33"):
        hugging_face.architecture_of(LLAMA, context=33)
    # The table of learned positions stays whole.
    assert hugging_face.architecture_of(GPT2, context=8).context == 32


@pytest.mark.parametrize(
    "options",
    [
        {"causal": False},
        {"positions": "learned"},
        {"bias": True},
        {**GPT2_OPTIONS, "key_value_heads": 1},
        {**GPT2_OPTIONS, "head_size": 4},
        {"width": 18, "heads": 4, "head_size": 4},
    ],
)
def test_networks_that_no_family_has(tmp_path, options):
    with pytest.raises(hugging_face.UnsupportedError):
        hugging_face.save(tmp_path / "made", model(**options))
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_that_is_not_whole(folder, tmp_path):
    with pytest.raises(ValueError, match="hf download"):
        hugging_face.load(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no config\.json"):
        hugging_face.load(tmp_path)
    change(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"no tensor lm_head\.weight"):
        hugging_face.load(folder)
    change(folder, tie_word_embeddings=True, intermediate_size=32)
    with pytest.raises(
        ValueError, match=r"up_proj.* \(24, 16\).* \(32, 16\)|down_proj"
    ):
        hugging_face.load(folder)
    change(folder, intermediate_size=24, num_hidden_layers=1)
    with pytest.raises(hugging_face.UnsupportedError, match=r"9 tensors .*layers\.1"):
        hugging_face.load(folder)
    change(folder, num_hidden_layers=2)
    hugging_face.load(folder)

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = np.zeros(16, np.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight .* I8"):
        hugging_face.load(folder)
    (folder / "model.safetensors").write_bytes(b"not this")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        hugging_face.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, .*own format"):
        hugging_face.load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        hugging_face.load(folder)


def test_a_part_is_missing(tmp_path):
    hugging_face.save(tmp_path, model(), shard_bytes=4000)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ValueError, match="lacks model-00002-of-"):
        hugging_face.load(tmp_path)


def test_names():
    assert source_of("gpt2", "head/kernel").transposed
    assert not source_of("gpt2", "blocks/mlp/up/kernel").transposed
    assert source_of("qwen2", "embed/embedding").name == "model.embed_tokens.weight"
    assert source_of("gpt2", "final_norm/bias").name == "transformer.ln_f.bias"
