"""VOC and COCO, on a few records of the real features with real JPEG files."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from sparsejax import train
from sparsejax.building import ConfigError
from sparsejax.data.coco import coco
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.data.stock_objects import Joined
from sparsejax.data.voc import voc

SIZES = [(160, 100), (64, 200), (120, 120)]
RED_BOX = (0.25, 0.5, 0.75, 1.0)
VOC_FEATURES = tfds.builder_cls("voc")(data_dir="/nowhere").info.features


def photograph(index):
    """A grey JPEG with a red box; the real datasets have images in grey as well."""
    width, height = SIZES[index % len(SIZES)]
    pixels = np.full((height, width, 3), 128, np.uint8)
    top, left, bottom, right = RED_BOX
    rows = slice(int(top * height), int(bottom * height))
    pixels[rows, int(left * width) : int(right * width)] = (255, 0, 0)
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(pixels)
    image.convert("L" if index == 2 else "RGB").save(buffer, "JPEG", quality=95)
    return io.BytesIO(buffer.getvalue())


def coco_features():
    # As in tfds 4.9, whose own file needs TensorFlow to say so.
    labels = tfds.features.ClassLabel(names=[f"class {i}" for i in range(80)])
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(
                {
                    "id": np.int64,
                    "area": np.int64,
                    "bbox": tfds.features.BBoxFeature(),
                    "label": labels,
                    "is_crowd": np.bool_,
                }
            ),
        }
    )


def voc_example(index):
    objects = [
        {
            "label": 14,
            "bbox": tfds.features.BBox(*RED_BOX),
            "pose": 0,
            "is_truncated": False,
            "is_difficult": False,
        },
        {
            "label": 6,
            "bbox": tfds.features.BBox(0.0, 0.0, 0.5, 0.5),
            "pose": 4,
            "is_truncated": True,
            "is_difficult": True,
        },
    ]
    return {
        "image": photograph(index),
        "image/filename": f"{index}.jpg",
        "objects": objects,
        "labels": [6, 14],
        "labels_no_difficult": [14],
    }


def coco_example(index):
    boxes = [RED_BOX, (0.0, 0.0, 0.5, 0.5)]
    objects = [
        {
            "id": 10 * index + i,
            "area": 100,
            "bbox": tfds.features.BBox(*box),
            "label": (17, 56)[i],
            "is_crowd": i == 1,
        }
        for i, box in enumerate(boxes)
    ]
    # Some of the real images show nothing.
    objects = [] if index == 1 else objects
    name = f"{index:012}.jpg"
    return {
        "image": photograph(index),
        "image/filename": name,
        "image/id": index,
        "objects": objects,
    }


with tfds.core.registered.skip_registration():

    class Voc(tfds.core.GeneratorBasedBuilder):
        """A few images under the name, version and features of the real dataset."""

        VERSION = tfds.core.Version("5.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=y) for y in ("2007", "2012")]
        EXAMPLE = staticmethod(voc_example)
        SPLITS = ("train", "validation", "test")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=VOC_FEATURES)

        def _split_generators(self, dl_manager):
            sizes = {split: 3 if split != "train" else 8 for split in self.SPLITS}
            return {s: self._generate_examples(n) for s, n in sizes.items()}

        def _generate_examples(self, count):
            for index in range(count):
                yield index, self.EXAMPLE(index % len(SIZES))

    class Coco(Voc):
        """As many of the other dataset."""

        VERSION = tfds.core.Version("1.1.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017")]
        EXAMPLE = staticmethod(coco_example)
        SPLITS = ("train", "validation")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=coco_features())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stock")
    for builder in (Voc, Coco):
        for config in builder.BUILDER_CONFIGS:
            options = {"config": config.name, "file_format": "array_record"}
            builder(data_dir=directory, **options).download_and_prepare()
    return str(directory)


@pytest.mark.parametrize(("build", "classes"), [(voc, 20), (coco, 80)])
def test_evaluation_batches(prepared, build, classes):
    dataset = build(data_dir=prepared, image_size=64)
    assert (dataset.number_of_classes, dataset.input_shape) == (classes, (64, 64, 3))
    assert len(dataset.class_names) == classes
    (batch,) = evaluation_batches(dataset, batch_size=4)
    assert batch["image"].shape == (4, 64, 64, 3)
    assert batch["weight"].tolist() == [1, 1, 1, 0]
    counts = batch["valid"].sum(axis=1).tolist()
    assert sorted(counts) == ([0, 2, 2, 2] if build is voc else [0, 0, 2, 2])
    for i in np.flatnonzero(counts):
        np.testing.assert_allclose(batch["boxes"][i][0], RED_BOX)
        assert batch["ignored"][i][:2].tolist() == [False, True]
        # Inside of the box the image differs from what is left of it.
        image = batch["image"][i][..., 1]
        assert image[20:44, 36:60].max() < image[20:44, 4:28].min()


def test_names_of_classes(prepared):
    assert voc(data_dir=prepared).class_names[14] == "person"
    assert coco(data_dir=prepared).class_names[17] == "class 17"


@pytest.mark.parametrize(("build", "count"), [(voc, 22), (coco, 8)])
def test_training_batches(prepared, build, count):
    dataset = build(data_dir=prepared, image_size=32)
    assert len(dataset.train) == count
    iterator = train_iterator(dataset, batch_size=3, seed=0)
    labels, red = set(), 0
    for _ in range(12):
        batch = next(iterator)
        assert batch["image"].shape == (3, 32, 32, 3)
        assert batch["boxes"].shape == (3, 100, 4)
        assert batch["boxes"].min() >= 0 and batch["boxes"].max() <= 1
        labels |= set(batch["labels"][batch["valid"]].tolist())
        for image, boxes, classes in zip(
            batch["image"], batch["boxes"], batch["labels"], strict=True
        ):
            for box in boxes[np.isin(classes, (14, 17))]:
                middle = ((box[:2] + box[2:]) / 2 * 32).astype(int)
                red += image[*middle, 1] < -1.5
    # Difficult objects are trained on, crowds are not; the grey image has nothing red.
    assert labels == ({6, 14} if build is voc else {17})
    assert red >= 8


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["voc", "coco"])
def test_the_recipes_train(prepared, tmp_path, argument):
    pytest.importorskip("pycocotools")
    settings = {
        "data.data_dir": prepared,
        "data.batch_size": 8,
        "data.image_size": 64,
        "data.worker_count": 0,
        "model.width": 0.1,
        "optimizer.learning_rate": 0.01,
        "steps": 20,
        "method.every": 5,
        "learning_rate_schedule.warmup_steps": 2,
    }
    overrides = [f"--config.{field}={value}" for field, value in settings.items()]
    command = [f"--config=rigl_ssd_mobilenet_v1:{argument}", f"--workdir={tmp_path}/x"]
    assert train.main([*command, *overrides]) == train.FINISHED
    summary = json.loads((tmp_path / "x" / "summary.json").read_text())
    assert summary["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert 0 <= summary["final"]["mean_average_precision"] <= 1


def test_joined_sources_are_one():
    joined = Joined([[1, 2], [], [3]])
    assert len(joined) == 3
    assert [joined[i] for i in range(3)] == [1, 2, 3]
    with pytest.raises(IndexError):
        joined[3]


@pytest.mark.parametrize(("build", "name"), [(voc, "voc/2007"), (coco, "coco/2017")])
def test_not_prepared_says_where_it_looked_and_what_to_do(tmp_path, build, name):
    with pytest.raises(ConfigError) as caught:
        build(data_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"config.data.name = {name.partition('/')[0]!r}",
        f"not prepared in {tmp_path}/{name}",
        'pip install "sparsejax[prepare]"',
        f"python scripts/prepare_data.py {name} --data_dir={tmp_path}",
        "TFDS_DATA_DIR",
    ):
        assert part in message


def test_prepared_in_a_format_that_needs_tensorflow(prepared, tmp_path):
    target = tmp_path / "coco" / "2017" / "1.1.0"
    target.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        with open(f"{prepared}/coco/2017/1.1.0/{name}") as file:
            (target / name).write_text(file.read().replace("array_record", "tfrecord"))
    with pytest.raises(ConfigError, match="tfds convert_format"):
        coco(data_dir=str(tmp_path))


def test_image_size_out_of_range():
    with pytest.raises(ConfigError, match=r"config.data.image_size = 31 is below 32"):
        voc(image_size=31)
