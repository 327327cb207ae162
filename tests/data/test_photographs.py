import numpy as np
import PIL.Image
import pytest
import records

from sparsejax.building import ConfigError
from sparsejax.data import photographs
from sparsejax.data.imagenet2012 import imagenet2012

MEAN, DEVIATION = photographs.MEAN, photographs.DEVIATION


def test_evaluation_takes_the_centre_of_the_resized_image():
    # 512 x 256, black but for a white square of 224 in the centre.
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 255
    stored = records.encoded(PIL.Image.fromarray(pixels), "PNG")
    example = {"image": stored, "label": 3}
    image = photographs.evaluation_example(example, size=224)["image"]
    white = (255 - MEAN) / DEVIATION
    np.testing.assert_allclose(image, np.broadcast_to(white, image.shape), rtol=1e-5)


def test_half_of_the_training_images_are_mirrored():
    pixels = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    stored = records.encoded(PIL.Image.fromarray(pixels), "PNG")
    example = {"image": stored, "label": 0}
    rng = np.random.default_rng(0)
    rising = 0
    for _ in range(200):
        image = photographs.train_example(example, rng, size=16)["image"]
        rising += image[8, -1, 0] > image[8, 0, 0]
    assert 70 < rising < 130


def test_colour_jitter_is_for_training_alone():
    stored = records.encoded(records.scene((60, 40)), "PNG")
    example = {"image": stored, "label": 0}

    def train(strength):
        rng = np.random.default_rng(1)
        return photographs.train_example(example, rng, size=32, colour_jitter=strength)[
            "image"
        ]

    # The crop is the same: colours are drawn after it.
    assert np.corrcoef(train(0.0).ravel(), train(0.4).ravel())[0, 1] > 0.9
    assert np.abs(train(0.0) - train(0.4)).mean() > 0.05


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_strengths_out_of_range(strength):
    with pytest.raises(ConfigError, match=rf"config.data.colour_jitter = {strength} "):
        imagenet2012(data_dir="/nowhere", colour_jitter=strength)
