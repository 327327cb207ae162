"""Prunes a trained network at once, by its weights and a little data.

  python -m sparsejax.prune --checkpoint=FOLDER --method=magnitude|wanda|sparsegpt
                            --sparsity=FRACTION | --structure=N:M
                            [--calibration=FILE] [--output=FOLDER] ...

--checkpoint      A Llama, Mistral, Qwen2 or GPT-2 of Hugging Face (config.json and
                  model.safetensors), or a run directory of sparsejax.train.
--method          magnitude: the smallest weights go. wanda: those of the smallest
                  magnitude times norm of the input, in each neuron. sparsegpt: column
                  by column, and the weights that stay make up for it.
--sparsity        Fraction of weights that become zero in each layer: 0.5.
--structure       N:M keeps N of every M neighbouring inputs: 2:4, 4:8. Or
                  unstructured (default of magnitude and sparsegpt), or fan_in, as many
                  in every neuron (default of wanda).
--where           Regular expression over paths: which matrices are pruned; default
                  those of attention and MLPs (of other networks all).
--calibration     A text file in UTF-8, a folder of them, or a dataset of text, such as
                  python_standard_library. Needed by wanda and sparsegpt for a
                  checkpoint of Hugging Face; a run has training data.
--evaluation      Another text to measure the perplexity by; default what the dataset
                  holds out, or a tenth of the calibration text. (A run is evaluated by
                  its task.)
--samples         Windows of text, or examples, to calibrate by; default 128.
--evaluation_samples  The most windows to evaluate by; default 128.
--length          Tokens in a window; default 2048, or the context if that is shorter.
--batch_size      Windows computed together; default 8.
--block           sparsegpt: inputs whose weights are chosen together; default 128.
--damping         sparsegpt: added to the diagonal, as a share of its mean; default
                  0.01.
--dtype           Of a checkpoint's computation: float32 (default) or bfloat16.
--seed            Of the choice of windows; default 0.
--output          Where to; default CHECKPOINT-METHOD-SPARSITY, such as
                  llama-wanda-2of4. It is of the same kind as the checkpoint, with exact
                  zeros: one of Hugging Face with its tokenizer and masks.npz, or a run
                  directory. pruning.json in it says what was done, per-layer sparsity,
                  and the metrics before and after.

Exit codes:
   0  pruned and written
   2  the command, the checkpoint, the text or the installation is at fault; nothing was
      written
   3  a pruned weight is not finite; nothing was written
  74  a file could not be written or read, such as on a full disk
"""

import sys

from sparsejax.extras import require_for_program

require_for_program(
    "sparsejax.prune",
    "absl flax grain ml_collections orbax.checkpoint rich safetensors "
    "tensorboardX tensorflow_datasets",
    extra="train",
    started=__name__ == "__main__",
)

import argparse
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jaxtyping import PyTree

import sparsejax as sj
from sparsejax import hugging_face, prune_command, prune_report, workdir
from sparsejax.building import ConfigError, build
from sparsejax.checkpoint import CheckpointError
from sparsejax.hugging_face.text import read_pieces, windows
from sparsejax.layers import Layer, by_name, choose_layers, leaves_with_paths
from sparsejax.programs import failed
from sparsejax.progress import Progress, progress
from sparsejax.prunable import Prunable, from_checkpoint, implied_sparsity
from sparsejax.prunable_run import from_run
from sparsejax.restoring import restored
from sparsejax.structures import Structure

DONE, MISUSED, NOT_FINITE, FILE_ERROR = 0, 2, 3, 74
REPORT = "pruning.json"


class NotFiniteError(Exception):
    """A pruned weight is infinite or no number; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: without the program's name; default: the process's own.

    Returns:
      The exit code; for what went wrong there is one line on standard error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-help", "-h"} & set(arguments):
        print(__doc__)
        return DONE if arguments else MISUSED
    logging.set_verbosity(logging.FATAL)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    try:
        command = prune_command.parse(arguments)
        return run(command, shlex.join(["python", "-m", "sparsejax.prune", *arguments]))
    except SystemExit:
        return MISUSED
    except (CheckpointError, OSError) as error:
        return failed("sparsejax.prune", FILE_ERROR, error)
    except NotFiniteError as error:
        return failed("sparsejax.prune", NOT_FINITE, error)
    except (ConfigError, ValueError) as error:
        return failed("sparsejax.prune", MISUSED, error)
    except KeyboardInterrupt:
        return failed("sparsejax.prune", MISUSED, "interrupted; nothing was written.")


def run(command: argparse.Namespace, text: str = "") -> int:
    """Prunes, measures and writes.

    Args:
      command: of `sparsejax.prune_command.parse`.
      text: the command line, for the report.

    Returns:
      The exit code.

    Raises:
      ConfigError: the checkpoint or the text does not fit the command.
      ValueError: the same, in the words of the library.
      NotFiniteError: the pruned weights are not finite.
      OSError: a file could not be written.
    """
    began = time.monotonic()
    with progress(1) as shown:
        shown.stage(f"reading {command.checkpoint}")
        network = _network(command, shown)
    where, layout = network.where, network.layout or by_name()
    chosen = choose_layers(network.params, where=where, layout=layout)
    count = sum(layer.slices for layer in chosen)
    with progress(count) as shown:
        before: Mapping[str, float] = {}
        if network.evaluate is not None:
            shown.stage("evaluating the network")
            before = network.evaluate(network.params)
            shown.message(f"before: {_text(before)}")
            if not np.isfinite(before.get("loss", 0.0)):
                raise NotFiniteError(
                    f"the loss of {command.checkpoint} is {before['loss']} before "
                    "anything was pruned; check that its weights are finite."
                )

        shown.stage(f"pruning {count} matrices by {command.method}")
        began_pruning = time.monotonic()
        params, masks = _pruned(command, network, _reporting(shown, chosen))
        _check_finite(params, masks)
        pruning = time.monotonic() - began_pruning

        after: Mapping[str, float] = {}
        if network.evaluate is not None:
            shown.stage("evaluating the pruned network")
            after = network.evaluate(params)
            shown.message(f"after: {_text(after)}")

        shown.stage(f"writing {command.output}")
        network.write(command.output, params, masks, after)
        report = {
            "command": text,
            "checkpoint": str(command.checkpoint),
            "method": command.method,
            "structure": command.structure,
            "sparsity": prune_report.share(masks),
            "before": before,
            "after": after,
            "seconds": {"pruning": pruning, "all": time.monotonic() - began},
            "layers": prune_report.rows(masks, layout),
        }
        workdir.write_json(command.output / REPORT, report)
        for row in prune_report.table(report["layers"]):
            shown.message(row)
        shown.message(
            f"{report['sparsity']:.4f} of the weights of {count} matrices are zero; "
            f"{f'before {_text(before)}, after {_text(after)}; ' if after else ''}"
            f"written to {command.output}"
        )
    return DONE


def _network(command: argparse.Namespace, shown: Progress) -> Prunable:
    folder = command.checkpoint
    settings = hugging_face.read_settings(folder)
    if "task" in settings and "model_type" not in settings:
        return _of_run(command, shown)
    return _of_checkpoint(command, settings, shown)


def _of_run(command: argparse.Namespace, shown: Progress) -> Prunable:
    for flag, unused in (("evaluation", None), ("length", None), ("dtype", "float32")):
        if getattr(command, flag) != unused:
            raise ConfigError(
                f"--{flag}={getattr(command, flag)}: a run is evaluated as its config "
                f"says; leave --{flag} out."
            )
    found = restored(command.checkpoint, report=shown.message)
    shown.message(f"{command.checkpoint}: step {found.step}")
    text = None
    if command.calibration is not None:
        length = found.task.dataset.input_shape[0]
        text, _ = _text_of(command, "calibration", length)
    return from_run(
        found,
        structure=command.structure,
        sparsity=command.sparsity,
        samples=command.samples,
        batch_size=command.batch_size,
        seed=command.seed,
        where=command.where,
        text=text,
    )


def _of_checkpoint(
    command: argparse.Namespace, settings: Mapping[str, Any], shown: Progress
) -> Prunable:
    walks = command.method != "magnitude"
    if walks and command.calibration is None:
        raise ConfigError(
            f"--calibration is missing: {command.method} looks at what enters the "
            "layers; give a text file such as the network was trained on."
        )
    fields = ("max_position_embeddings", "n_positions", "sliding_window")
    limits = [settings.get(field) for field in fields]
    length = command.length or min(2048, *(limit for limit in limits if limit))
    half = command.dtype == "bfloat16"
    stored = settings.get("torch_dtype", settings.get("dtype"))
    model = hugging_face.load(
        command.checkpoint,
        scanned=False,
        dtype=command.dtype,
        # What was not rounded in the files is not rounded here.
        parameter_dtype="bfloat16" if half and stored == "bfloat16" else "float32",
        context=length,
    )
    found = None
    if command.calibration or command.evaluation:
        shown.stage("reading and tokenizing text")
        calibration, held_out = _text_of(command, "calibration", length)
        if command.evaluation:
            first, held_out = _text_of(command, "evaluation", length)
            held_out = held_out or first
        found = windows(
            command.checkpoint,
            model.shape.vocabulary,
            calibration,
            held_out,
            length=length,
            samples=command.samples if walks else 0,
            evaluation_samples=command.evaluation_samples,
            seed=command.seed,
        )
        shown.message(
            f"{len(found.calibration)} windows of {length} tokens to calibrate by, "
            f"{len(found.held_out)} to evaluate by"
        )
        if walks and len(found.calibration) < command.samples:
            shown.message(
                f"the text has fewer than the --samples={command.samples} windows that "
                "were asked for"
            )
    return from_checkpoint(
        command.checkpoint,
        model,
        found,
        batch_size=command.batch_size,
        where=command.where,
    )


def _text_of(
    command: argparse.Namespace, flag: str, length: int
) -> tuple[list[str] | None, list[str] | None]:
    """Pieces of the text that a flag names, and of those that it holds out."""
    name = getattr(command, flag)
    if name is None:
        return None, None
    path = pathlib.Path(name)
    if path.exists():
        return read_pieces(path, length), None
    try:
        dataset = build(
            "data",
            # A byte is less than any token: these rows are long enough for windows.
            {"name": name, "context": 8 * length, "tokenizer": "bytes"},
            "sparsejax.data",
        )
    except ConfigError as error:
        raise ConfigError(
            f"--{flag}={name} is neither a file nor a dataset of text: {error}"
        ) from error
    random = np.random.default_rng(command.seed)
    count = max(command.samples, command.evaluation_samples)

    def pieces(source: Any) -> list[str]:
        chosen = random.choice(len(source), min(count, len(source)), replace=False)
        rows = (source[int(index)]["tokens"] for index in chosen)
        return [dataset.tokenizer.decode(row).decode(errors="replace") for row in rows]

    return pieces(dataset.train), pieces(dataset.evaluation)


def _pruned(
    command: argparse.Namespace,
    network: Prunable,
    report: Callable[[str, int], None],
) -> tuple[PyTree, PyTree]:
    arguments = dict(command.structure)
    structure: Structure = getattr(sj, arguments.pop("name"))(**arguments)
    places: dict[str, Any] = {"where": network.where, "layout": network.layout}
    sparsity = implied_sparsity(network.params, structure, command.sparsity, **places)
    options = {"sparsity": sparsity, "structure": structure, **places}
    if command.method == "magnitude":
        return sj.pruning.magnitude(network.params, **options)
    if command.method == "sparsegpt":
        options |= {"block": command.block, "damping": command.damping}
    prune = getattr(sj.pruning, command.method)
    return prune(
        network.apply, network.params, network.batches, report=report, **options
    )


def _reporting(shown: Progress, layers: Sequence[Layer]) -> Callable[[str, int], None]:
    stacked = {layer.path for layer in layers if layer.spec.stacked}
    done = 0

    def report(path: str, index: int) -> None:
        nonlocal done
        done += 1
        shown.advance(done, f"{path} {index}" if path in stacked else path)

    return report


def _check_finite(params: PyTree, masks: PyTree) -> None:
    pruned = dict(leaves_with_paths(masks))
    for path, leaf in leaves_with_paths(params):
        if path not in pruned:
            continue
        # What has no order is never selected.
        if not bool(jnp.isfinite(leaf).all()) or not bool(pruned[path].any()):
            raise NotFiniteError(
                f"{path}, or what enters it, is not finite after pruning; raise "
                "--damping, give more --samples, or check that the checkpoint's "
                "weights are finite."
            )


def _text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


if __name__ == "__main__":
    sys.exit(main())
