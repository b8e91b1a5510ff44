"""Texts as anybody may read them: in reports, in logs, on a screen."""

import re
from typing import Final

_PASSWORDS: Final = re.compile(r"(?<=//)(?<!///)([^/@:]*:)[^/]*(?=@)|(password=)[^&\s]*")


def without_password(text: str) -> str:
    """Return a text whose URLs keep no password, wherever in a URL it stands."""
    return _PASSWORDS.sub(lambda found: f"{found[1] or found[2]}***", text)
