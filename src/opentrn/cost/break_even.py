"""When a move to other hardware pays for itself: savings a run against the effort that the user states."""

import math
from dataclasses import dataclass

from opentrn.errors import OpenTrnError

__all__ = ["BreakEven", "break_even"]


@dataclass(frozen=True)
class BreakEven:
    """`runs` of this size, or `tokens` trained, after which the effort is paid back; infinite when nothing is saved."""

    saving_usd: float
    effort_usd: float
    runs: float
    tokens: float

    def sentence(self, here: str, there: str) -> str:
        """One line for a person."""
        if self.saving_usd <= 0.0:
            return f"{here} costs {-self.saving_usd:,.0f} USD more a run than {there}: a move does not pay"
        if self.runs <= 1.0:
            saved = f"{here} saves {self.saving_usd:,.0f} USD against {there}"
            return f"{saved}: the first run pays the {self.effort_usd:,.0f} USD"
        return (
            f"{here} saves {self.saving_usd:,.0f} USD a run against {there}: {self.effort_usd:,.0f} USD of migration "
            f"are paid back after {math.ceil(self.runs)} runs ({self.tokens:.2e} tokens)"
        )


def break_even(cost_usd: float, peer_cost_usd: float, tokens: float, effort_usd: float) -> BreakEven:
    """Compare a run's cost with its cost on the peer; `effort_usd` is what moving there takes once.

    Raises OpenTrnError for a negative effort.
    """
    if effort_usd < 0.0:
        raise OpenTrnError(f"the migration effort must not be negative, got {effort_usd:g} USD")
    saving = peer_cost_usd - cost_usd
    runs = effort_usd / saving if saving > 0.0 else math.inf
    return BreakEven(saving, effort_usd, runs, runs * tokens)
