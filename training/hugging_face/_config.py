"""What is asked of a config.json: the keys that it must have, and the values that a family computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training import TrainingError


def given(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key. Raises TrainingError where there is none."""
    if (value := config.get(key)) is None:
        raise TrainingError(f"no {key!r}, which a {config['model_type']} has")
    return value


def refuse(config: Mapping[str, Any], only: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises TrainingError where a key has another value than the family computes; an absent one has the first."""
    for key, can in only.items():
        if (value := config.get(key, can[0])) not in can:
            raise TrainingError(f"{key} {value!r} is not computed here, only {can[0]!r}")
