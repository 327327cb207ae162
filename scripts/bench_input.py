"""Images per second and core of the ImageNet pipeline, beside torchvision's.

Random photographs of about ImageNet's size (500x375 and the like, JPEG, about 110 kB)
are written as records of `imagenet2012`. Every round lets all contenders prepare the
same number of training images of 224x224 in turn, in one thread, by the CPU time that
it takes, so that a noisy machine slows all of them:

    decoder       PIL decodes the JPEG to RGB, and that is all
    torchvision   its reference: PIL, RandomResizedCrop, RandomHorizontalFlip, ToTensor,
                  Normalize
    ours          `imagenet2012`'s own transform
    ours, batches the same with the records read and the images put into one array

Printed are medians and the 10th to 90th percentile over the rounds, also of the ratios
within a round. With --workers the whole pipelines, in so many processes, take turns
too, by the clock on the wall; torchvision's then reads from memory, ours records.

    pip install torch torchvision
    python scripts/bench_input.py               # about two minutes on two cores
    python scripts/bench_input.py --workers 2
"""

import argparse
import contextlib
import functools
import io
import itertools
import tempfile
import time

import numpy as np
import PIL
import PIL.features
import PIL.Image
import tensorflow_datasets as tfds
import torch
import torchvision
from torchvision import transforms

from sparsejax.data import photographs, pipeline
from sparsejax.data.imagenet2012 import imagenet2012

SIZE = 224
SIZES = ((500, 375), (375, 500), (500, 333), (500, 375), (640, 480), (400, 300))
NORMALISE = [
    transforms.ToTensor(),
    transforms.Normalize(photographs.MEAN / 255, photographs.DEVIATION / 255),
]
TRAIN = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        *NORMALISE,
    ]
)
EVALUATION = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop(SIZE), *NORMALISE]
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=96, help="distinct photographs")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: skip")
    options = parser.parse_args()
    torch.set_num_threads(1)
    decoder = PIL.features.version_feature("libjpeg_turbo")
    print(
        f"pillow {PIL.__version__} (libjpeg-turbo {decoder}), "
        f"torchvision {torchvision.__version__}"
    )
    with tempfile.TemporaryDirectory() as directory:
        dataset = prepared(directory, options.images)
        files = [dataset.train[i]["image"] for i in range(len(dataset.train))]
        kilobytes = np.mean([len(file) for file in files]) / 1e3
        print(f"{len(files)} photographs, {kilobytes:.0f} kB on average")
        check(dataset, files[0])
        compare(dataset, files, options.rounds)
        if options.workers:
            compare_workers(dataset, files, options.workers)


def compare(dataset, files, rounds):
    """One thread: CPU time of all contenders in turn."""
    count = len(files)
    rng = np.random.default_rng(0)
    batches = pipeline.train_batches(dataset, batch_size=count, seed=0)
    indices = itertools.count()
    transform = dataset.train_transform
    contenders = {
        "decoder": lambda: [opened(file) for file in files],
        "torchvision": lambda: [TRAIN(opened(file)) for file in files],
        "ours": lambda: [transform({"image": f, "label": 0}, rng) for f in files],
        "ours, batches": lambda: batches[next(indices)],
    }
    seconds = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    # The first round warms up.
    rates = {name: count / np.array(times[1:]) for name, times in seconds.items()}
    print(f"\nimages per second and core, {rounds} rounds of {count} images")
    for name, rate in rates.items():
        show(name, rate, "{:.0f}")
    for name in ("ours", "ours, batches"):
        for other in ("torchvision", "decoder"):
            show(f"{name} / {other}", rates[name] / rates[other], "{:.2f}")


def compare_workers(dataset, files, workers, batch_size=32, batches=8, rounds=5):
    """Whole pipelines in worker processes, by the clock on the wall."""

    def ours():
        iterator = pipeline.train_iterator(
            dataset, batch_size=batch_size, seed=0, worker_count=workers
        )
        return iterator, iterator.close

    def theirs():
        loader = torch.utils.data.DataLoader(
            # The readers of records do not survive the fork of its workers.
            Photographs(files, (batches + 2 * workers + 2) * batch_size),
            batch_size=batch_size,
            shuffle=True,
            num_workers=workers,
        )
        return iter(loader), lambda: None

    rates = {"torchvision": [], "ours": []}
    for _ in range(rounds):
        for name, begin in (("torchvision", theirs), ("ours", ours)):
            iterator, close = begin()
            # What workers prepared while they started does not count.
            for _ in range(2 * workers + 2):
                next(iterator)
            start = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            seconds = time.perf_counter() - start
            rates[name].append(batches * batch_size / seconds)
            close()
            del iterator
    rates = {name: np.array(rate) for name, rate in rates.items()}
    print(f"\nimages per second of {workers} worker processes, {rounds} rounds")
    for name, rate in rates.items():
        show(name, rate, "{:.0f}")
    show("ours / torchvision", rates["ours"] / rates["torchvision"], "{:.2f}")


class Photographs(torch.utils.data.Dataset):
    """Files in memory, over and over again."""

    def __init__(self, files, length):
        self.files, self.length = files, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return TRAIN(opened(self.files[index % len(self.files)])), 0


def check(dataset, file):
    """In evaluation, where nothing is random, both give the same image."""
    ours = dataset.evaluation_transform({"image": file, "label": 0})["image"]
    theirs = EVALUATION(opened(file)).permute(1, 2, 0).numpy()
    levels = np.abs(ours - theirs).max() * photographs.DEVIATION.max()
    print(f"evaluation: the same as torchvision's to {levels:.1f} of 255 levels")
    if levels > 2:
        raise SystemExit("the pipelines differ: there is nothing to compare")


def opened(file):
    return PIL.Image.open(io.BytesIO(file)).convert("RGB")


def show(name, values, form):
    low, median, high = (
        form.format(value) for value in np.percentile(values, [10, 50, 90])
    )
    print(f"  {name:28} {median:>6}  ({low} to {high})")


def prepared(directory, count):
    """ImageNet, prepared from photographs that look random but not like noise."""
    features = tfds.builder_cls("imagenet2012")(data_dir=directory).info.features

    with tfds.core.registered.skip_registration():

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.builder_cls("imagenet2012").VERSION

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(count),
                    "validation": self._generate_examples(1),
                }

            def _generate_examples(self, count):
                for index in range(count):
                    image = photograph(SIZES[index % len(SIZES)], index)
                    name = f"{index}.JPEG"
                    yield name, {"image": image, "label": 0, "file_name": name}

    builder = Imagenet2012(data_dir=directory, file_format="array_record")
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        builder.download_and_prepare()
    return imagenet2012(data_dir=directory, image_size=SIZE)


def photograph(size, seed):
    """A JPEG with the spectrum of photographs and the edges of a few objects."""
    width, height = size
    random = np.random.default_rng(seed)
    texture = functools.partial(one_over_f, random, height, width)
    luminance = texture()
    pixels = np.stack([luminance + 0.4 * texture() for _ in range(3)], axis=-1)
    down, across = np.mgrid[:height, :width]
    for _ in range(12):
        radii = random.uniform(0.05, 0.3, 2) * max(size)
        x, y = random.uniform(0, width), random.uniform(0, height)
        inside = ((across - x) / radii[0]) ** 2 + ((down - y) / radii[1]) ** 2 < 1
        pixels[inside] += random.normal(0, 1, 3)
    image = PIL.Image.fromarray((128 + 45 * pixels).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return io.BytesIO(buffer.getvalue())


def one_over_f(random, height, width):
    frequencies = np.hypot(
        np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    )
    frequencies[0, 0] = 1
    phases = random.standard_normal((2, *frequencies.shape))
    spectrum = (phases[0] + 1j * phases[1]) / frequencies**1.2
    values = np.fft.irfft2(spectrum, (height, width))
    return values / values.std()


if __name__ == "__main__":
    main()
