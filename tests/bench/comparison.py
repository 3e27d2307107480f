"""What a row of the table compares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Two sides of one work on the same input; ours is to be at least so many times as fast, and aims at more.

    `data` names an input of `inputs.make`. `how` says what of the peer is run, where its name does not. On one core
    CPU seconds are compared; on several it is the wall clock, and runs that others disturb are left out.
    """

    title: str
    ours: str
    peer: str
    data: str
    at_least: float | None = None
    aim: float | None = None
    how: str = ""
    cores: int = 1
