"""When each instruction of a Program runs on the chip, and why not sooner.

:func:`schedule` turns the programs of a launch into a :class:`Timeline`. The model is by mechanism: in-order engines,
semaphores, memory that is reused, DMA queues and descriptors, clock states; its figures stand in ``hardware/cores``.
"""

from __future__ import annotations

from opentrn.timing.schedule import WHAT_IFS, schedule
from opentrn.timing.timeline import ENGINES, Cause, Timeline

__all__ = ["ENGINES", "WHAT_IFS", "Cause", "Timeline", "schedule"]
