"""From an address to a version whose books lie in the store that is asked: what every question about books begins with.

The law: whoever gets a version here may read its ledger, signals and plans. What cannot be asked is refused in one
sentence, before anything is read or written.
"""

from __future__ import annotations

from pipeline import manifest as manifests
from pipeline.books import BuildKeys
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError


def find(store: Store, address: str) -> tuple[Version, BuildKeys]:
    """The version that an address means, and where its books lie in `store`.

    Raises ConfigError where there is no such version, it lies in another store, its manifest was edited, or its books
    are not here or damaged.
    """
    version = sealed(store, address)
    home = (store.root / "versions").resolve()
    if home not in version.folder.resolve().parents:
        raise ConfigError(
            f"{address} does not lie in the store {store.root}: name two versions of one store, and that with --store"
        )
    try:
        return version, books(store, version)
    except StoreError as error:
        raise ConfigError(f"{version.address} cannot be asked: {error}") from error


def sealed(store: Store, address: str) -> Version:
    """The version that an address means. Raises ConfigError where there is none, or its manifest was edited."""
    return manifests.unedited(met(store, address))


def met(store: Store, address: str) -> Version:
    """The version that an address means, whatever became of it. Raises ConfigError where none can be read."""
    try:
        return manifests.find(store, address)
    except StoreError as error:
        raise ConfigError(f"{error}; restore it, or build the version again") from error


def books(store: Store, version: Version) -> BuildKeys:
    """Where the books of a version lie, all of them in `store`. Raises as `find`; StoreError for a damaged output."""
    if not (version.folder / "build.json").exists():
        raise ConfigError(
            f"the books of {version.address} are not in {store.root}: this copy has no books (no build.json); "
            "use the store that built it, or build it again here"
        )
    try:
        keys = version.build_keys()
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{version.folder / 'build.json'} is damaged: {error}; build the version again") from error
    missing = [key for key in keys.every() if key and store.done(key) is None]
    if missing:
        raise ConfigError(
            f"the books of {version.address} are not in {store.root} ({len(missing)} of {len(keys.every())} outputs "
            f"are missing, first {missing[0]}); use the store that built it, or build it again here"
        )
    return keys
