import io
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sklearn.datasets

from sparsejax.building import ConfigError
from sparsejax.data import digits as digits_module
from sparsejax.data import embedded
from sparsejax.data.digits import digits
from sparsejax.data.pipeline import train_iterator


@pytest.fixture(scope="module")
def dataset(data_dir):
    return digits(data_dir=str(data_dir))


def prepared_files(directory):
    return sorted(path.name for path in (directory / "digits").iterdir())


def test_split_is_fixed_disjoint_and_complete(dataset):
    assert (len(dataset.train), len(dataset.evaluation)) == (1437, 360)
    stored = [e["image"].tobytes() for e in (*dataset.train, *dataset.evaluation)]
    images = sklearn.datasets.load_digits().images
    original = [(image * 15).astype(np.uint8).tobytes() for image in images]
    assert sorted(stored) == sorted(original)


def test_labels_belong_to_their_images(dataset):
    data = sklearn.datasets.load_digits()
    label_of = {
        (image * 15).astype(np.uint8).tobytes(): label
        for image, label in zip(data.images, data.target, strict=True)
    }
    for example in (*dataset.train, *dataset.evaluation):
        assert label_of[example["image"].tobytes()] == example["label"]


def test_split_is_stratified(dataset):
    counts = np.bincount(sklearn.datasets.load_digits().target)
    held_out = np.bincount([e["label"] for e in dataset.evaluation])
    assert np.abs(held_out - counts * 360 / 1797).max() < 1


def test_training_images_are_standardised(dataset):
    rng = np.random.default_rng(0)
    batch = [dataset.train_transform(example, rng) for example in dataset.train]
    images = np.stack([example["image"] for example in batch])
    assert images.shape == (1437, *dataset.input_shape)
    assert images.dtype == np.float32
    assert images.mean() == pytest.approx(0, abs=1e-4)
    assert images.std() == pytest.approx(1, abs=1e-4)


def test_no_augmentation_by_default(dataset):
    example = dataset.train[0]
    trained = dataset.train_transform(example, np.random.default_rng(0))
    np.testing.assert_array_equal(
        trained["image"], dataset.evaluation_transform(example)["image"]
    )


def test_shift_moves_images_by_up_to_that_many_pixels(data_dir):
    dataset = digits(data_dir=str(data_dir), shift=1)
    example = dataset.train[0]
    padded = np.pad(example["image"], ((1, 1), (1, 1), (0, 0)))
    allowed = {
        padded[i : i + 8, j : j + 8].tobytes() for i in range(3) for j in range(3)
    }
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        image = dataset.train_transform(example, rng)["image"]
        pixels = np.round(image * digits_module._DEVIATION + digits_module._MEAN)
        seen.add(pixels.astype(np.uint8).tobytes())
    assert seen == allowed


def test_shift_out_of_range():
    with pytest.raises(ConfigError, match=r"config.data.shift = 8 is not in \[0, 8\)"):
        digits(shift=8)


def test_batches(dataset):
    batch = next(train_iterator(dataset, batch_size=32, seed=0))
    assert batch["image"].shape == (32, 8, 8, 1)
    assert set(batch["label"]) <= set(range(dataset.number_of_classes))


def test_readable_by_tfds_itself(data_dir, dataset):
    import tensorflow_datasets as tfds

    source = tfds.data_source("digits", data_dir=str(data_dir), split="test")
    assert len(source) == 360
    np.testing.assert_array_equal(source[5]["image"], dataset.evaluation[5]["image"])


def test_prepares_quietly_leaves_only_the_dataset_and_reads_it_again(tmp_path, capfd):
    digits(data_dir=str(tmp_path))
    assert prepared_files(tmp_path) == ["1.0.0"]
    assert capfd.readouterr().out == ""
    (tmp_path / "digits").chmod(0o500)
    assert len(digits(data_dir=str(tmp_path)).train) == 1437
    (tmp_path / "digits").chmod(0o700)


def test_environment_variable_names_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    digits()
    assert prepared_files(tmp_path) == ["1.0.0"]


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    script = textwrap.dedent(f"""
        import sys, time
        from sparsejax.data.digits import digits
        sys.stdin.readline()
        dataset = digits(data_dir={str(tmp_path)!r})
        print(len(dataset.train), len(dataset.evaluation))
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate("go\n")[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == ["1437 360\n"] * 2
    assert prepared_files(tmp_path) == ["1.0.0"]


def test_loser_of_a_race_uses_the_winners_copy(tmp_path, monkeypatch):
    publish = embedded._publish

    def publish_second(prepared, target):
        monkeypatch.setattr(embedded, "_publish", publish)
        digits(data_dir=str(tmp_path))
        (target / "winner").touch()
        publish(prepared, target)

    monkeypatch.setattr(embedded, "_publish", publish_second)
    assert len(digits(data_dir=str(tmp_path)).train) == 1437
    assert (tmp_path / "digits" / "1.0.0" / "winner").exists()
    assert prepared_files(tmp_path) == ["1.0.0"]


def test_killed_half_way_starts_over(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal
        from sparsejax.data import embedded
        from sparsejax.data.digits import digits
        def kill(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        embedded._publish = kill
        digits(data_dir={str(tmp_path)!r})
    """)
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    assert "1.0.0" not in prepared_files(tmp_path)
    assert len(digits(data_dir=str(tmp_path)).train) == 1437
    assert "1.0.0" in prepared_files(tmp_path)


def test_an_incomplete_copy_is_replaced(tmp_path):
    target = tmp_path / "digits" / "1.0.0"
    target.mkdir(parents=True)
    (target / "digits-train.array_record-00000-of-00001").write_bytes(b"half")
    assert len(digits(data_dir=str(tmp_path)).train) == 1437


def test_directory_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=r"config.data.data_dir: cannot write to"):
        digits(data_dir=str(blocked))


def test_does_not_load_tensorflow(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        from sparsejax.data.digits import digits
        digits(data_dir={str(tmp_path)!r}).train[0]
        assert "tensorflow" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_images_are_stored_as_png(data_dir, dataset):
    import PIL.Image
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data_dir / "digits" / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split="train", decoders=decoders)
    image = PIL.Image.open(io.BytesIO(source[3]["image"]))
    assert image.format == "PNG"
    np.testing.assert_array_equal(image, dataset.train[3]["image"][..., 0])


@pytest.mark.parametrize("how", ["truncated", "emptied", "overwritten"])
def test_a_damaged_file_is_named(tmp_path, how):
    digits(data_dir=tmp_path)
    (file,) = tmp_path.rglob("*digits-train.array_record*")
    content = bytearray(file.read_bytes())
    if how == "overwritten":
        middle = len(content) // 3
        content[middle : middle + 8] = b"\xff" * 8
    else:
        content = content[: len(content) // 2 if how == "truncated" else 0]
    file.write_bytes(content)
    message = r"example \d+ of the split 'train' in .*/digits/.* its files are damaged"
    with pytest.raises(OSError, match=message):
        digits(data_dir=tmp_path)
