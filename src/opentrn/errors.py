"""The one family of errors that OpenTrn raises.

Catch `OpenTrnError` for all of it. A message is one sentence: what was wrong, where in the user's code, what the
limit is and what to do. The command line prints it as one line; it never shows a traceback of ours.
"""


class OpenTrnError(Exception):
    """Anything OpenTrn refuses or cannot do."""


class HardwareError(OpenTrnError):
    """An unknown chip, core, instance, rack, GPU or figure, or a hardware file that cannot be used."""


class MissingFigureError(HardwareError, AttributeError):
    """A figure that a hardware record does not have, most often because nobody has published it.

    Also an `AttributeError`, so that `hasattr` and `getattr` with a default work on records.
    """


class UnsupportedError(OpenTrnError):
    """A public API that exists on the real stack and that OpenTrn does not support."""


class KernelError(OpenTrnError):
    """Something wrong in a user's kernel.

    `source` is the (file, line) of the user's code that caused it, or None where no line is known; when given, the
    message starts with it.
    """

    def __init__(self, message: str, source: tuple[str, int] | None = None) -> None:
        self.source = source
        self.reason = message
        super().__init__(f"{source[0]}:{source[1]}: {message}" if source else message)

    # Exception's own __reduce__ would pass the prefixed message back as `message`; worker processes pickle errors.
    def __reduce__(self):
        return type(self), (self.reason, self.source)


class ValidationError(KernelError):
    """A use of an instruction, layout or type that the chip would refuse."""


class CapacityError(KernelError):
    """A tensor that does not fit into SBUF, PSUM or HBM."""


class UninitializedError(KernelError):
    """A read of memory that was never written."""


class DeadlockError(KernelError):
    """Cores or engines that wait for each other and would never finish."""
