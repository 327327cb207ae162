import io

import numpy as np
import PIL.Image
import pytest
import records

from sparsejax.data import augmentation

BILINEAR = PIL.Image.Resampling.BILINEAR


def opened(image, **options):
    stored = records.encoded(image, "JPEG", quality=95, **options)
    return PIL.Image.open(io.BytesIO(stored))


def difference(image, other):
    return np.abs(np.asarray(image, np.float32) - np.asarray(other, np.float32))


def test_crops_have_the_published_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = [augmentation.random_box((400, 300), rng) for _ in range(500)]
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    area, ratio = width * height / (400 * 300), width / height
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 400
    assert bottom.max() <= 300
    assert 0.07 < area.min() < 0.15
    assert 0.85 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.80
    assert 1.27 < ratio.max() < 1.35


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1)])
def test_crops_of_extreme_images_fall_back_to_the_centre(size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        left, top, right, bottom = augmentation.random_box(size, rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (230, 301)])
def test_the_central_crop_is_cut_from_the_resized_image(size):
    image = records.scene(size)
    scale = 256 / min(size)
    width, height = (round(side * scale) for side in size)
    resized = image.resize((width, height), BILINEAR)
    left, top = (width - 224) // 2, (height - 224) // 2
    expected = resized.crop((left, top, left + 224, top + 224))
    found = augmentation.central_crop(image, size=224)
    # Coefficients may be rounded the other way.
    assert difference(found, expected).max() <= 1


@pytest.mark.parametrize(("wanted", "factor"), [(64, 2), (32, 4), (16, 8)])
def test_large_files_are_decoded_more_coarsely_with_almost_the_same_result(
    wanted, factor
):
    size = (1000, 900)
    image = records.scene(size)
    lazily = opened(image)
    rng = np.random.default_rng(3)
    found = augmentation.random_resized_crop(lazily, rng, size=wanted)
    assert lazily.size == tuple(-(-side // factor) for side in size)
    box = augmentation.random_box(size, np.random.default_rng(3))
    expected = opened(image).resize((wanted, wanted), BILINEAR, box=box)
    assert difference(found, expected).mean() < 0.5
    assert np.percentile(difference(found, expected), 99) < 5


def test_files_of_the_usual_size_are_decoded_in_full():
    found = opened(records.scene((500, 375)))
    augmentation.random_resized_crop(found, np.random.default_rng(0), size=224)
    assert found.size == (500, 375)


def test_other_formats_are_never_shrunk():
    stored = records.encoded(records.scene((1000, 800)), "PNG")
    image = PIL.Image.open(io.BytesIO(stored))
    found = augmentation.random_resized_crop(image, np.random.default_rng(3), size=16)
    assert (image.size, found.size) == ((1000, 800), (16, 16))


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_colour_jitter_changes_what_it_says(strength):
    pixels = np.array([[[200, 100, 50], [60, 120, 20]]], np.uint8)
    image = PIL.Image.fromarray(pixels)
    luma = np.array([0.299, 0.587, 0.114])

    def brightness(pixels, factor):
        return pixels * factor

    def contrast(pixels, factor):
        mean = (pixels @ luma).mean()
        return mean + factor * (pixels - mean)

    def saturation(pixels, factor):
        grey = (pixels @ luma)[..., None]
        return grey + factor * (pixels - grey)

    operations = [brightness, contrast, saturation]
    for seed in range(20):
        found = augmentation.colour_jittered(
            image, np.random.default_rng(seed), strength=strength
        )
        rng = np.random.default_rng(seed)
        factors = rng.uniform(1 - strength, 1 + strength, size=3)
        expected = pixels.astype(float)
        for index in rng.permutation(3):
            expected = operations[index](expected, factors[index]).clip(0, 255)
        # Every step rounds, and the next one multiplies what it has rounded.
        np.testing.assert_allclose(found, expected, atol=7)


def test_no_colour_jitter_draws_nothing():
    rng = np.random.default_rng(0)
    image = records.scene((4, 4))
    assert augmentation.colour_jittered(image, rng, strength=0.0) is image
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("padding", augmentation.PADDINGS)
def test_padded_crops_are_parts_of_the_padded_image(padding):
    pixels = np.random.default_rng(0).integers(1, 256, (6, 5, 3), dtype=np.uint8)
    mode = {"symmetric": "symmetric", "zero": "constant"}[padding]
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode=mode)
    parts = {
        padded[down : down + 6, right : right + 5].tobytes()
        for down in range(5)
        for right in range(5)
    }
    rng = np.random.default_rng(1)
    found = {
        augmentation.padded_crop(pixels, rng, border=2, padding=padding).tobytes()
        for _ in range(400)
    }
    assert found == parts
    assert len(parts) == 25
