"""Checkpoints that transformers writes are read, and what we write it reads."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import hugging_face, prune

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
SHARED = {"num_key_value_heads": 2}
CASES = {
    "llama": ("Llama", SMALL),
    "llama, shared heads, tied": (
        "Llama",
        {**SMALL, **SHARED, "tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    ),
    "llama 3, scaled": ("Llama", {**SMALL, **SHARED, "rope_parameters": LLAMA3}),
    "llama, biases and wide heads": (
        "Llama",
        {**SMALL, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    ),
    "mistral": ("Mistral", {**SMALL, **SHARED, "sliding_window": None}),
    "qwen2": ("Qwen2", {**SMALL, **SHARED}),
    "qwen2, tied": ("Qwen2", {**SMALL, **SHARED, "tie_word_embeddings": True}),
    "gpt2": (
        "GPT2",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 99, "n_positions": 64}
        | {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2},
    ),
    "gpt2, untied": (
        "GPT2",
        {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 99, "n_positions": 64}
        | {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2}
        | {"tie_word_embeddings": False, "n_inner": 40},
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 99, (2, 40))


def theirs(case):
    """A network of transformers with random weights, biases and scales included."""
    name, settings = CASES[case]
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.float().numpy()


def our_logits(model):
    return np.asarray(nnx.jit(lambda model, tokens: model(tokens))(model, TOKENS))


def same(ours, others):
    np.testing.assert_allclose(ours, others, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request, tmp_path_factory):
    """A folder that transformers wrote, and its network's logits."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = theirs(request.param)
    model.save_pretrained(folder)
    logits = their_logits(model)
    assert np.abs(logits).max() > 0.5
    return folder, logits


@pytest.mark.parametrize("scanned", [True, False])
def test_logits_are_those_of_transformers_and_back(checkpoint, tmp_path, scanned):
    folder, expected = checkpoint
    ours = hugging_face.load(folder, scanned=scanned)
    assert isinstance(ours.blocks, nnx.List) != scanned
    same(our_logits(ours), expected)

    hugging_face.save(tmp_path / "written", ours)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "written", attn_implementation="eager"
    ).eval()
    same(their_logits(again), expected)
    assert again.dtype == torch.float32

    hugging_face.save(tmp_path / "copied", ours, like=folder, shard_bytes=20_000)
    copy = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "copied")
    assert copy.config.model_type == ours_settings(folder)["model_type"]
    before = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert before.keys() == copy.state_dict().keys()
    for name, tensor in copy.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def ours_settings(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["qwen2", "gpt2"])
def test_parts_in_half_precision(tmp_path, case, dtype):
    model = theirs(case).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    # Read again, since frequencies of the positions were rounded, too.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "theirs", dtype=torch.float32
    )
    assert not (tmp_path / "theirs/model.safetensors").exists()
    ours = hugging_face.load(tmp_path / "theirs")
    assert ours.embed.embedding.dtype == jnp.float32
    same(our_logits(ours), their_logits(model))

    narrow = hugging_face.load(tmp_path / "theirs", parameter_dtype=dtype)
    np.testing.assert_array_equal(our_logits(narrow), our_logits(ours))
    for one in (ours, narrow):
        # As the checkpoint's own, in each tensor's own type.
        hugging_face.save(tmp_path / "ours", one, like=tmp_path / "theirs")
        again = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "ours", dtype="auto"
        )
        assert again.dtype == getattr(torch, dtype)
        for name, tensor in again.float().state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name


def test_names_of_a_network_without_its_head(tmp_path):
    model = theirs("gpt2")
    expected = their_logits(model)
    model.transformer.save_pretrained(tmp_path)
    same(our_logits(hugging_face.load(tmp_path)), expected)


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_settings_of_old_and_new_releases(tmp_path, field):
    """transformers 4 has ``rope_theta`` and ``rope_scaling``, 5 one field for both."""
    model = theirs("llama 3, scaled")
    model.save_pretrained(tmp_path)
    settings = ours_settings(tmp_path)
    assert "rope_scaling" not in settings
    if field == "rope_scaling":
        rope = settings.pop("rope_parameters")
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["rope_scaling"] = rope
        (tmp_path / "config.json").write_text(json.dumps(settings))
    same(our_logits(hugging_face.load(tmp_path)), their_logits(model))


def test_a_window_that_no_sequence_reaches_is_none(tmp_path):
    _, settings = CASES["mistral"]
    settings = {**settings, "sliding_window": 48}
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**settings))
    model.save_pretrained(tmp_path)
    with pytest.raises(hugging_face.UnsupportedError, match="context = 48"):
        hugging_face.load(tmp_path)
    ours = hugging_face.load(tmp_path, context=48)
    assert ours.shape.context == 48
    same(our_logits(ours), their_logits(model.eval()))
    hugging_face.save(tmp_path / "copy", ours, like=tmp_path)
    assert ours_settings(tmp_path / "copy")["sliding_window"] == 48
    assert ours_settings(tmp_path / "copy")["max_position_embeddings"] == 64


@pytest.mark.parametrize("case", ["llama, shared heads, tied", "gpt2"])
def test_what_was_pruned_is_read_with_its_zeros(tmp_path, case):
    model = theirs(case)
    model.save_pretrained(tmp_path / "dense")
    arguments = [f"--checkpoint={tmp_path / 'dense'}", "--method=magnitude"]
    arguments += ["--structure=2:4", f"--output={tmp_path / 'sparse'}"]
    assert prune.main(arguments) == 0
    sparse = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sparse")
    same(our_logits(hugging_face.load(tmp_path / "sparse")), their_logits(sparse))
    dense = dict(model.named_parameters())
    pruned = 0
    for name, tensor in sparse.named_parameters():
        matrix = tensor.ndim == 2 and (".layers." in name or ".h." in name)
        zeros = int((tensor == 0).sum())
        assert zeros == (tensor.numel() // 2 if matrix else 0), name
        kept = tensor != 0
        assert torch.equal(tensor[kept], dense[name][kept])
        pruned += matrix
    assert pruned == {"g": 12, "l": 21}[case[0]]
