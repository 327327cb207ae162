"""What a method says about itself: read by tests, reports and the documentation."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Card"]


class Card(NamedTuple):
    """The constant ``CARD`` of a method's file.

    Attributes:
      paper: authors and year; empty for none.
      budget: what becomes of the number of weights. "fixed": each layer has its exact
        budget at all times; "scheduled": from ``stop`` on; "global": all layers
        together have it, from ``stop`` on; "bounded": no layer has more than its
        budget, from ``stop`` on; "emergent": there is no budget.
      choose: when to choose the method, as a clause.
      memory: what it keeps beside the wrapped optimizer's state.
      needs: keyword arguments of ``update`` that it cannot do without.
      asks: in words, what else it needs (a network at construction, dense training).
      dense_gradient: whether topology moves read the gradient at the zeros, or "every
        step" does, which the cost of training accounts for.
      structures: which structures make sense with it.
    """

    paper: str
    budget: Literal["fixed", "scheduled", "global", "bounded", "emergent"]
    choose: str
    memory: str = "masks"
    needs: tuple[str, ...] = ()
    asks: str = ""
    dense_gradient: Literal[False, True, "every step"] = False
    structures: str = "any"
