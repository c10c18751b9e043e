"""Settings that hold for every test."""

from hypothesis import settings

# No deadline for a single example: the first one may compile a kernel, and machines under test are shared.
settings.register_profile("opentrn", deadline=None)
settings.load_profile("opentrn")
