"""Crops, mirroring and colour jitter of single images, from a NumPy generator.

They run where images are decoded, in worker processes: photographs as PIL images,
small images as arrays.
"""

import functools
import math

import numpy as np
import PIL.Image
import PIL.ImageEnhance
from jaxtyping import Int, UInt8

_CROP_AREA = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10

# A JPEG is decoded at a half, a quarter or an eighth of its size where that leaves this
# many pixels for each that is wanted, along each axis: the smoothing of the resizing
# then hides the difference. PIL has the same margin in its thumbnails.
_DECODED_PIXELS = 2

#: Ways to fill the border that :func:`padded_crop` adds.
PADDINGS = ("symmetric", "zero")

Box = tuple[float, float, float, float]


def random_resized_crop(
    image: PIL.Image.Image, rng: np.random.Generator, *, size: int
) -> PIL.Image.Image:
    """A random part of a photograph, resized to a square.

    The part has 8 % to 100 % of the area and an aspect ratio of 3/4 to 4/3; resized
    bilinearly with antialiasing.

    Args:
      image: A photograph, best as it was opened: it is decoded only as finely as the
        part needs.
      rng: Draws the part.
      size: Height and width of the result.

    Returns:
      The part, in RGB.

    Example:
      >>> photograph = PIL.Image.new("RGB", (500, 375))
      >>> random_resized_crop(photograph, np.random.default_rng(0), size=224).size
      (224, 224)

    References:
      Szegedy et al., "Going deeper with convolutions", 2015.
    """
    return _resized(image, random_box(image.size, rng), size)


def central_crop(image: PIL.Image.Image, *, size: int) -> PIL.Image.Image:
    """The centre of a photograph whose shorter side is resized to 8/7 of `size`.

    For 224 that is the usual evaluation: 256, then the central 224. Bilinear with
    antialiasing.

    Args:
      image: A photograph, best as it was opened.
      size: Height and width of the result.

    Returns:
      The centre, in RGB.

    Example:
      >>> central_crop(PIL.Image.new("L", (500, 375)), size=224).size
      (224, 224)
    """
    shorter = round(size * 8 / 7)
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    # The box that the crop would be cut from, so that nothing else is resized.
    across, down = image.size[0] / width, image.size[1] / height
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return _resized(image, box, size)


def mirrored(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """The image, or in half of the cases its mirror image.

    Args:
      image: Any image.
      rng: Decides.

    Returns:
      The image; right and left may be swapped.
    """
    if rng.random() < 0.5:
        return image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def colour_jittered(
    image: PIL.Image.Image, rng: np.random.Generator, *, strength: float
) -> PIL.Image.Image:
    """Brightness, contrast and saturation, each times a random factor, in any order.

    Args:
      image: An image in RGB.
      rng: Draws the factors and their order.
      strength: The factors are uniform in [1 - strength, 1 + strength]; in [0, 1].
        Howard uses 0.5, the reference recipe for ResNets of Gross and Wilber 0.4.

    Returns:
      The image; at strength 0 the same one.

    Example:
      >>> grey = PIL.Image.new("RGB", (2, 2), (100, 100, 100))
      >>> jittered = colour_jittered(grey, np.random.default_rng(0), strength=0.5)
      >>> red, green, blue = jittered.getpixel((0, 0))
      >>> red == green == blue != 100
      True

    References:
      Howard, "Some improvements on deep convolutional neural network based image
      classification", 2013.
    """
    if not strength:
        return image
    factors = rng.uniform(1 - strength, 1 + strength, size=len(_ENHANCERS))
    for index in rng.permutation(len(_ENHANCERS)):
        image = _ENHANCERS[index](image).enhance(float(factors[index]))
    return image


_ENHANCERS = (
    PIL.ImageEnhance.Brightness,
    PIL.ImageEnhance.Contrast,
    PIL.ImageEnhance.Color,
)


def padded_crop(
    pixels: UInt8[np.ndarray, "h w c"],
    rng: np.random.Generator,
    *,
    border: int,
    padding: str,
) -> UInt8[np.ndarray, "h w c"]:
    """A random part as large as the image, from the image with a border around it.

    Args:
      pixels: The image.
      rng: Draws the part.
      border: Width of the border, in pixels; at most the image's height and width.
      padding: ``"symmetric"``: the border mirrors the image, its outermost pixels
        included (wide residual networks; RigL); ``"zero"``: it is black (residual
        networks).

    Returns:
      The part.

    Example:
      >>> pixels = np.arange(1, 5, dtype=np.uint8).reshape(2, 2, 1)
      >>> rng = np.random.default_rng(1)
      >>> padded_crop(pixels, rng, border=1, padding="zero")[..., 0]
      array([[1, 2],
             [3, 4]], dtype=uint8)

    References:
      He et al., "Deep residual learning for image recognition", 2016; Zagoruyko and
      Komodakis, "Wide residual networks", 2016.
    """
    height, width, _ = pixels.shape
    down, right = rng.integers(2 * border + 1, size=2).tolist()
    if padding == "symmetric":
        rows = _mirrored_indices(height, border)[down : down + height]
        columns = _mirrored_indices(width, border)[right : right + width]
        return pixels.take(rows, axis=0).take(columns, axis=1)
    padded = np.zeros(
        (height + 2 * border, width + 2 * border, pixels.shape[2]), pixels.dtype
    )
    padded[border : border + height, border : border + width] = pixels
    return padded[down : down + height, right : right + width]


@functools.cache
def _mirrored_indices(size: int, border: int) -> Int[np.ndarray, " padded"]:
    return np.pad(np.arange(size), border, mode="symmetric")


def random_box(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws the part of a photograph that :func:`random_resized_crop` takes.

    When no attempt fits, it is the central one of the nearest allowed ratio.

    Args:
      size: Width and height of the photograph.
      rng: Draws area, aspect ratio and place.

    Returns:
      Left, top, right and bottom, in pixels.

    Example:
      >>> random_box((10, 1000), np.random.default_rng(0))
      (0, 493, 10, 506)
    """
    image_width, image_height = size
    smallest, largest = _CROP_RATIO
    for _ in range(_CROP_ATTEMPTS):
        area = image_width * image_height * rng.uniform(*_CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= image_width and 0 < height <= image_height:
            left = int(rng.integers(image_width - width + 1))
            top = int(rng.integers(image_height - height + 1))
            return left, top, left + width, top + height
    width = min(image_width, max(1, round(image_height * largest)))
    height = min(image_height, max(1, round(image_width / smallest)))
    left, top = (image_width - width) // 2, (image_height - height) // 2
    return left, top, left + width, top + height


def _resized(image: PIL.Image.Image, box: Box, size: int) -> PIL.Image.Image:
    reduction = min(box[2] - box[0], box[3] - box[1]) / (size * _DECODED_PIXELS)
    if reduction >= 2:
        width, height = image.size
        wanted = (math.ceil(width / reduction), math.ceil(height / reduction))
        # None for a file that is no JPEG, or that is decoded already.
        drafted = image.draft(image.mode, wanted)
        if drafted is not None:
            factor = drafted[1][2] / width
            left, top, right, bottom = (factor * edge for edge in box)
            box = (left, top, right, bottom)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box)
