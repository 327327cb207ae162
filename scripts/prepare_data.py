"""Prepares a stock dataset of tfds as array_record files, which training reads.

    pip install "sparsejax[prepare]"            # TensorFlow, for this step alone
    python scripts/prepare_data.py cifar10
    python scripts/prepare_data.py imagenette/320px-v2 --data_dir=/data

Names: imagenet2012, imagenette, cifar10, cifar100, mnist, voc (2007 and 2012), coco
(2017), and any other that `tfds build` knows, with /CONFIG if it has several. What was
prepared already is left as it is. Downloads are kept in DATA_DIR/downloads and can be
deleted afterwards.

ImageNet cannot be downloaded freely: put ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar, from https://image-net.org/download-images after registration,
into DATA_DIR/downloads/manual. They have 144 GiB; the prepared copy needs as much
again.

Exit codes: 0 prepared, now or already before; 1 a download or the preparation failed,
and the message says why; 2 the name, the installation or a missing file is at fault,
and nothing was downloaded.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import sys

SEVERAL = {"voc": ("voc/2007", "voc/2012"), "coco": ("coco/2017",)}
# tfds would prepare the rest without the split that is missing.
MANUAL_FILES = {
    "imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
}


class UsageError(Exception):
    """What the user has to change; one line."""


def main(arguments=None):
    """Prepares what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the dataset's name in tfds")
    parser.add_argument(
        "--data_dir",
        help="where tfds keeps its datasets; default: $TFDS_DATA_DIR, or else "
        "~/tensorflow_datasets",
    )
    options = parser.parse_args(arguments)
    try:
        builders = [
            checked_builder(name, options.data_dir)
            for name in SEVERAL.get(options.name, (options.name,))
        ]
    except UsageError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    for builder in builders:
        try:
            prepare(builder)
        except Exception as error:
            print(f"prepare_data: {builder.name}: {error}", file=sys.stderr)
            return 1
    return 0


def checked_builder(name, data_dir):
    """The dataset's builder, after everything that can be checked without a network."""
    require("tensorflow_datasets", "train")
    import tensorflow_datasets as tfds

    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        # It prints a banner where TensorFlow is missing; we have one line for that.
        with contextlib.redirect_stdout(io.StringIO()):
            builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise UsageError(
            f"{name!r}: tfds has no such dataset; there are imagenet2012, imagenette, "
            "cifar10, cifar100, mnist, voc, coco, and those of "
            "https://www.tensorflow.org/datasets/catalog"
        ) from None
    except ModuleNotFoundError:
        # Some datasets cannot even be described without it.
        require("tensorflow", "prepare")
        raise
    except ValueError:
        dataset = name.partition("/")[0]
        configs = [c.name for c in tfds.builder_cls(dataset).BUILDER_CONFIGS]
        known = ", ".join(f"{dataset}/{config}" for config in configs) or dataset
        raise UsageError(f"{name!r}: no such config; there are {known}") from None
    if builder.info.splits:
        if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise UsageError(
                f"{builder.data_dir} has it as {builder.info.file_format.value}: name "
                "another --data_dir, or convert it: tfds convert_format "
                f"--dataset_dir={builder.data_dir} --out_file_format=array_record "
                "--out_path=..."
            )
        return builder
    require("tensorflow", "prepare")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        check_manual_files(builder)
    return builder


def require(module, extra):
    """Raises unless a module is installed."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f'{module} is missing: pip install "sparsejax[{extra}]"')


def check_manual_files(builder):
    """Raises unless what cannot be downloaded freely is where it is looked for."""
    folder = manual_folder(builder)
    files = MANUAL_FILES.get(builder.name, ())
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise UsageError(
            f"{builder.name}: put {' and '.join(missing)} from {builder.info.homepage} "
            f"into {folder}"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UsageError(f"{builder.name}: {folder} is empty. {instructions}")


def manual_folder(builder):
    """Where tfds looks for files that cannot be downloaded freely."""
    root = str(builder.data_dir).split(f"/{builder.name}/")[0]
    return pathlib.Path(root, "downloads", "manual")


def prepare(builder):
    """Downloads and writes the records, unless they are there; says what there is."""
    import tensorflow_datasets as tfds

    if not builder.info.splits:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            print(f"reading {manual_folder(builder)}")
        # Its messages are about TensorFlow's formats, its bars about progress.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(
                file_format=tfds.core.FileFormat.ARRAY_RECORD.value
            )
    print(f"prepared in {builder.data_dir}:")
    for split, information in builder.info.splits.items():
        print(f"  {split}: {information.num_examples:,} examples")


if __name__ == "__main__":
    sys.exit(main())
