"""Prepared stock datasets of a few images, as tfds would write the real ones."""

import io

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

# Of photographs; the first, 500 by 375, is the usual size in ImageNet.
SIZES = [(500, 375), (300, 200), (64, 500), (500, 33), (40, 40), (224, 224)]


def prepare(name, directory, *, counts=None, image=None):
    """Writes records with the features, splits' names and version of a dataset.

    Args:
      name: The dataset's name in tfds, with ``/CONFIG`` if it has several.
      directory: Where tfds keeps its datasets.
      counts: Split to the number of examples.
      image: From an index to a PIL image, or to the bytes of a file; by default a
        photograph or an image of the dataset's own shape.

    Returns:
      The directory.
    """
    counts = counts or {"train": 10, "validation": 6}
    real = tfds.builder_cls(name.partition("/")[0])
    # Only the features are wanted: the real builder's directory is never looked at.
    config = {"config": name.partition("/")[2]} if "/" in name else {}
    real = real(data_dir="/nowhere", **config)
    features = real.info.features
    make = image or (lambda index: example_image(features["image"].shape, index))

    with tfds.core.registered.skip_registration():

        class Few(tfds.core.GeneratorBasedBuilder):
            VERSION = real.version
            BUILDER_CONFIGS = [real.builder_config] if real.builder_config else []

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {
                    split: self._generate_examples(n) for split, n in counts.items()
                }

            def _generate_examples(self, count):
                for index in range(count):
                    stored = make(index)
                    if isinstance(stored, bytes):
                        stored = io.BytesIO(stored)
                    example = {"image": stored}
                    for other, feature in features.items():
                        if isinstance(feature, tfds.features.ClassLabel):
                            example[other] = index % feature.num_classes
                        elif other != "image":
                            example[other] = f"{index}.JPEG"
                    yield index, example

    Few.name = real.name
    Few(data_dir=directory, file_format="array_record", **config).download_and_prepare()
    return str(directory)


def example_image(shape, index):
    """A photograph as a JPEG if the shape is unknown, or else an image to store."""
    if None not in shape:
        random = np.random.default_rng(index)
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        return PIL.Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels)
    # The real datasets have photographs in grey and in CMYK as well.
    mode = ("RGB", "L", "CMYK")[index % 3]
    image = scene(SIZES[index % len(SIZES)], index).convert(mode)
    return encoded(image, "JPEG", quality=95)


def scene(size, seed=0):
    """Smooth shades and edges, as in a photograph."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    slopes = random.uniform(-1, 1, (3, 2))
    shades = [np.sin(6 * (a * across + b * down)) for a, b in slopes]
    disc = (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.1
    pixels = 127 + 80 * np.stack(shades, axis=-1) + 40 * disc[..., None]
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def encoded(image, file_format, **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
