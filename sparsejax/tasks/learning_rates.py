"""Learning-rate schedules by the names that ``config.learning_rate_schedule`` uses.

All of them rise linearly from 0 to the peak in their first ``warmup_steps`` steps.
"""

from collections.abc import Sequence

import optax


def constant(peak: float, steps: int, *, warmup_steps: int = 0) -> optax.Schedule:
    """The peak, after the warm-up.

    Args:
      peak: The learning rate after the warm-up.
      steps: Steps of the whole run.
      warmup_steps: Steps of the linear warm-up.

    Returns:
      A function of the step.

    Raises:
      ValueError: If the warm-up is not shorter than the run.

    Example:
      >>> float(constant(0.5, 100)(99))
      0.5
    """
    return _warmed_up(optax.constant_schedule(peak), peak, steps, warmup_steps)


def cosine(
    peak: float, steps: int, *, warmup_steps: int = 0, final: float = 0.0
) -> optax.Schedule:
    """Half a cosine from the peak down to ``final * peak`` at the end of the run.

    Args:
      peak: The learning rate after the warm-up.
      steps: Steps of the whole run.
      warmup_steps: Steps of the linear warm-up.
      final: Last learning rate as a fraction of the peak.

    Returns:
      A function of the step.

    Raises:
      ValueError: If the warm-up is not shorter than the run.

    Example:
      >>> round(float(cosine(0.5, 100)(50)), 6)
      0.25
    """
    length = max(steps - warmup_steps, 1)
    decay = optax.cosine_decay_schedule(peak, length, alpha=final)
    return _warmed_up(decay, peak, steps, warmup_steps)


def staircase(
    peak: float,
    steps: int,
    *,
    boundaries: Sequence[int],
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """The peak, multiplied by a factor at each boundary.

    Args:
      peak: The learning rate after the warm-up.
      steps: Steps of the whole run.
      boundaries: Steps, counted from the start of the run, from which on the learning
        rate is multiplied once more.
      factor: What it is multiplied by.
      warmup_steps: Steps of the linear warm-up.

    Returns:
      A function of the step.

    Raises:
      ValueError: If the warm-up is not shorter than the run, or a boundary is not
        between the two.

    Example:
      >>> schedule = staircase(1.0, 100, boundaries=(30, 70), factor=0.5)
      >>> [float(schedule(step)) for step in (29, 30, 70)]
      [1.0, 0.5, 0.25]
    """
    for boundary in boundaries:
        if not warmup_steps < boundary < steps:
            raise ValueError(
                f"boundaries = {tuple(boundaries)}: {boundary} is not between the end "
                f"of the warm-up, {warmup_steps}, and the end of the run, {steps}."
            )
    stairs = optax.piecewise_constant_schedule(
        peak, {boundary - warmup_steps: factor for boundary in boundaries}
    )
    return _warmed_up(stairs, peak, steps, warmup_steps)


def _warmed_up(
    schedule: optax.Schedule, peak: float, steps: int, warmup_steps: int
) -> optax.Schedule:
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"warmup_steps = {warmup_steps} is not in [0, {steps}), the run's steps; "
            "shorten the warm-up, or train longer."
        )
    if warmup_steps == 0:
        return schedule
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, schedule], [warmup_steps])
