"""JSON for a program, which a terminal may be shown as well."""

from __future__ import annotations

import json

from llmagent_ros.console.text import printable


def json_text(values: object) -> str:
    """Indented, letters of all languages as they are; controls and invisible characters escaped, which says the same.

    Raises:
        TypeError: they have no form in JSON.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    shown = printable(text)
    return text if shown == text else "".join(c if printable(c) else json.dumps(c)[1:-1] for c in text)
