"""The domain of a web address: its host, in lower case, with no port and no user."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

DOMAIN = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<domain>[^/:?#]+)"


def of(urls: pa.Array) -> pa.Array:
    """The domain of each address; null where there is none."""
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, DOMAIN), "domain"))
