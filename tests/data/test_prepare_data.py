"""The script that prepares stock datasets."""

import importlib.util
import io
import pathlib
import tarfile

import pytest
import records

from sparsejax.data.digits import Digits, digits
from sparsejax.data.imagenet2012 import imagenet2012
from sparsejax.data.pipeline import evaluation_batches

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "prepare_data.py"


@pytest.fixture
def script():
    specification = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def tensorflow(script, monkeypatch):
    """As if it were installed: none of these tests gets as far as using it."""
    monkeypatch.setattr(script, "require", lambda module, extra: None)


def test_help(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for part in ("imagenet2012", "voc", "downloads/manual", "[prepare]", "--data_dir"):
        assert part in shown


def test_without_tensorflow_it_says_how_to_install_it(
    script, tmp_path, monkeypatch, capsys
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow" else found(name, *rest),
    )
    assert script.main(["cifar10", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert 'tensorflow is missing: pip install "sparsejax[prepare]"' in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifer10", "'cifer10': tfds has no such dataset; there are imagenet2012"),
        ("imagenette/64px", "no such config; there are imagenette/full-size-v2, "),
        ("cifar10/large", "'cifar10/large': no such config; there are cifar10"),
    ],
)
def test_unknown_names(script, tensorflow, tmp_path, capsys, name, message):
    assert script.main([name, f"--data_dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([], "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https"),
        (["ILSVRC2012_img_train.tar"], "put ILSVRC2012_img_val.tar from https"),
    ],
)
def test_missing_manual_downloads(
    script, tensorflow, tmp_path, capsys, present, missing
):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    for file in present:
        (folder / file).touch()
    assert script.main(["imagenet2012", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert missing in message
    assert f"into {folder}\n" in message


def test_manual_downloads_of_other_datasets(script, tensorflow, tmp_path, capsys):
    assert script.main(["resisc45", f"--data_dir={tmp_path}"]) == 2
    assert f"{tmp_path}/downloads/manual is empty. " in capsys.readouterr().err


def test_prepares_what_is_not_there_and_leaves_what_is(
    script, tensorflow, tmp_path, monkeypatch, capsys
):
    # A builder of ours, which needs no TensorFlow.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    command = [Digits.name]
    assert script.main(command) == 0
    shown = capsys.readouterr().out
    assert f"prepared in {tmp_path}/digits/1.0.0:" in shown
    assert "train: 1,437 examples" in shown
    record = next((tmp_path / "digits" / "1.0.0").glob("*train*array_record*"))
    before = record.stat()
    assert script.main(command) == 0
    assert record.stat() == before
    assert len(digits().train) == 1437


def test_what_is_prepared_needs_no_tensorflow(script, tmp_path, capsys):
    records.prepare("mnist", tmp_path, counts={"train": 3, "test": 2})
    assert script.main(["mnist", f"--data_dir={tmp_path}"]) == 0
    assert "  test: 2 examples" in capsys.readouterr().out


def test_another_format_is_refused(script, tmp_path, capsys):
    records.prepare("mnist", tmp_path, counts={"train": 3, "test": 2})
    file = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    file.write_text(file.read_text().replace("array_record", "tfrecord"))
    assert script.main(["mnist", f"--data_dir={tmp_path}"]) == 2
    assert "tfds convert_format" in capsys.readouterr().err


def test_a_failure_is_one_message(script, tensorflow, tmp_path, monkeypatch, capsys):
    def fail(self, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(Digits, "download_and_prepare", fail)
    assert script.main(["digits", f"--data_dir={tmp_path}"]) == 1
    assert capsys.readouterr().err == "prepare_data: digits: the disk is full\n"


def test_names_that_stand_for_several(script, tensorflow, tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(script, "prepare", lambda b: prepared.append(b.info.full_name))
    assert script.main(["voc", f"--data_dir={tmp_path}"]) == 0
    names = [name.rpartition("/")[0] for name in prepared]
    assert names == ["voc/2007", "voc/2012"]


@pytest.mark.slow
def test_the_real_builder_of_imagenet(script, tmp_path, capsys):
    pytest.importorskip("tensorflow")

    def add(archive, name, content):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    def photograph(index):
        image = records.scene(records.SIZES[index % len(records.SIZES)], index)
        return records.encoded(image, "JPEG")

    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    synsets = ("n01440764", "n01443537")
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for synset in synsets:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for index in range(3):
                    add(images, f"{synset}_{index}.JPEG", photograph(index))
            add(archive, f"{synset}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for index in range(4):
            name = f"ILSVRC2012_val_{index + 1:08}.JPEG"
            add(archive, name, photograph(index))

    assert script.main(["imagenet2012", f"--data_dir={tmp_path}"]) == 0
    assert "train: 6 examples" in capsys.readouterr().out
    dataset = imagenet2012(data_dir=str(tmp_path))
    labels = sorted(dataset.train[index]["label"] for index in range(6))
    # The two synsets are the first of the 1,000 classes.
    assert labels == [0, 0, 0, 1, 1, 1]
    (batch,) = evaluation_batches(dataset, batch_size=4)
    # Sea snake, Alp, Shetland sheepdog and soup bowl: the published labels.
    assert sorted(batch["label"]) == [65, 230, 809, 970]
