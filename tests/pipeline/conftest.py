"""Hypothesis without deadlines: a first call compiles kernels, and the machine is shared."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mill", deadline=None, print_blob=True)
settings.load_profile("mill")
