"""Writes text with a transformer that was trained, as it is being made.

  python -m sparsejax.generate --workdir=RUN [--prompt=TEXT] [--tokens=N]
                               [--temperature=T] [--top-k=K] [--top-p=P] [--seed=S]
                               [--samples=N] [--compressed]

--workdir      The run directory of a config whose task is language_model; its newest
               checkpoint that is whole is read.
--prompt       What to go on from; default: nothing, as at the beginning of a document.
--tokens       How many to write at most, default 400; a document may end before.
--temperature  0 takes the likeliest token each time; default 0.8.
--top-k        Draws from the K likeliest tokens alone.
--top-p        Draws from the fewest tokens that have the probability P together.
--seed         Of what is drawn; default 0. Sample 2 differs from sample 1.
--samples      How many texts to write, one after the other; default 1.
--compressed   Decodes with compressed weights, which skip the zeros.

The text goes to standard output, the speed to standard error. For runs on Python's own
source there is also the share of the written lines that Python's tokenize accepts, each
line alone, beside that of lines held out of the training.

Exit codes: 0 written; 2 the command, the run or the installation is at fault; 74 a file
could not be read or written; 130 interrupted by Ctrl-C.
"""

import sys

from sparsejax.extras import require_for_program

require_for_program(
    "sparsejax.generate",
    "absl flax grain ml_collections orbax.checkpoint tensorflow_datasets",
    extra="train",
    started=__name__ == "__main__",
)

import argparse
import codecs
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from flax import nnx

import sparsejax as sj
from sparsejax.building import ConfigError, build, plain
from sparsejax.decoding import stream
from sparsejax.models.compression import compressed
from sparsejax.models.transformer import Transformer
from sparsejax.programs import Parser, failed
from sparsejax.python_lines import accepted
from sparsejax.restoring import Restored, restored
from sparsejax.runs import RunError

DONE, MISUSED, FILE_ERROR, INTERRUPTED = 0, 2, 74, 130
CORPUS = "python_standard_library"
HELD_OUT = (16, 64)
"""From how many places of the held-out text, and how many rows at each."""


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
    tfds.disable_progress_bar()
    try:
        return run(_parsed(arguments))
    except (ConfigError, RunError) as error:
        return failed("sparsejax.generate", MISUSED, error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough; what is buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        return failed("sparsejax.generate", FILE_ERROR, error)


def run(options: argparse.Namespace) -> int:
    """Writes the samples.

    Args:
      options: of the command line.

    Returns:
      The exit code.

    Raises:
      ConfigError: an option is out of range, or the run's model is no decoder.
      RunError: the run cannot be read.
    """
    run = restored(options.workdir)
    model, tokenizer = _model(run, options.compressed), run.task.dataset.tokenizer
    _note(f"step {run.step} of {options.workdir}, {_described(run, options)}")
    [written] = tokenizer.encode([options.prompt.encode()])
    prompt = [tokenizer.boundary, *map(int, written)]
    terminal = sys.stdout.isatty()
    good = lines = 0
    for sample in range(options.samples):
        if options.samples > 1:
            print(f"==> sample {sample + 1} of {options.samples} <==")
        key = jax.random.fold_in(jax.random.key(options.seed), sample)
        try:
            parts = stream(
                model,
                [prompt],
                tokens=options.tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                key=key,
                stop=tokenizer.boundary,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        text = _written(parts, tokenizer, options.prompt, terminal)
        # The prompt's last line, and the line that was cut off, are not counted.
        more = accepted(text if options.prompt else "\n" + text)
        good, lines = good + more[0], lines + more[1]
    config: Any = run.config
    if config.data.name == CORPUS:
        _note(_lines_text(good, lines, run))
    return DONE


def _written(parts: Any, tokenizer: Any, prompt: str, terminal: bool) -> str:
    """Writes the tokens as they come, and how fast that was; returns the text."""
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces, clock = [], [time.monotonic()]

    def write(text):
        pieces.append(text)
        sys.stdout.write(_shown(text) if terminal else text)
        sys.stdout.flush()

    sys.stdout.write(prompt)
    for part in parts:
        # Bytes of a character that is not whole yet wait for the others.
        write(characters.decode(tokenizer.decode(part[0].tolist())))
        clock.append(time.monotonic())
    write(characters.decode(b"", final=True))
    print(flush=True)
    first, *others = np.diff(clock)
    speed = (
        f", {1 / np.median(others):.1f} a second after it (median)" if others else ""
    )
    _note(f"{len(clock) - 1} tokens, the first in {first:.1f} s{speed}")
    return "".join(pieces)


def _shown(text: str) -> str:
    """Text whose control characters a terminal does not obey."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


def _model(run: Restored, compress: bool) -> Transformer:
    """The network as it is evaluated, its blocks in a list."""
    dataset, state = run.task.dataset, run.state
    config: Any = run.config
    if dataset.tokenizer is None or config.task != "language_model":
        raise ConfigError(
            f"config.task = {plain(config.task)!r}: text is written by runs of "
            "'language_model', such as those of rigl_transformer."
        )

    def make() -> nnx.Module:
        return build(
            "model",
            config.model,
            "sparsejax.models",
            dataset.input_shape,
            dataset.number_of_classes,
            rngs=nnx.Rngs(0),
        )

    model = nnx.eval_shape(make)
    if not isinstance(model, Transformer) or not model.shape.causal:
        raise ConfigError(
            f"config.model.name = {config.model.name!r}: text is written by decoders, "
            "such as 'transformer'."
        )
    if state.average is not None:
        params, others = state.average
    else:
        others = state.model_state
        params = sj.evaluation_params(state.params, state.optimizer_state)
    model = nnx.merge(nnx.graphdef(model), params, others)
    if not compress:
        return model.unscanned()
    try:
        return compressed(model, state.optimizer_state, batch=1)
    except ValueError as error:
        raise ConfigError(f"--compressed: {error}") from error


def _described(run: Restored, options: argparse.Namespace) -> str:
    found = sj.counts(run.state.optimizer_state).values()
    size = sum(size for _, size in found)
    kept = sum(active for active, _ in found)
    sparse = f"{100 * (1 - kept / size):.4g} % of its matrices zero, " if size else ""
    return sparse + ("compressed" if options.compressed else "masked")


def _lines_text(good: int, lines: int, run: Restored) -> str:
    reference_good, reference_lines = _held_out(run.task.dataset)
    written = f"{100 * good / lines:.1f} %" if lines else "none"
    return (
        f"{written} of {lines} written lines are accepted by Python's tokenize, each "
        f"alone; of {reference_lines} held-out lines, "
        f"{100 * reference_good / max(reference_lines, 1):.1f} %"
    )


def _held_out(dataset: Any) -> tuple[int, int]:
    """Accepted and all lines of stretches of the held-out text."""
    places, rows = HELD_OUT
    last = max(len(dataset.evaluation) - rows, 0)
    good = lines = 0
    for start in np.unique(np.linspace(0, last, places).astype(int)):
        stretch = range(start, min(start + rows, len(dataset.evaluation)))
        # The last token of a row is the first of the next.
        tokens = [dataset.evaluation[index]["tokens"][:-1] for index in stretch]
        text = dataset.tokenizer.decode(np.concatenate(tokens).tolist())
        more = accepted(text.decode(errors="replace"))
        good, lines = good + more[0], lines + more[1]
    return good, lines


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--compressed", action="store_true")
    options = parser.parse_args(arguments)
    if options.samples < 1:
        raise ConfigError(f"--samples={options.samples}: use 1 or more.")
    return options


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
