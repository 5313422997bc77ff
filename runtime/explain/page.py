"""The document as a page: the template `page.html` with the document in it, compressed."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any


def page(document: Mapping[str, Any]) -> str:
    """The text of the page. The document is JSON, deflated (RFC 1950) and in base64: browsers inflate it themselves."""
    data = zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9)
    text = Path(__file__).with_name("page.html").read_text("utf-8")
    title = escape(f"{document['title']}, {document['entry']}")
    return text.replace("{{TITLE}}", title).replace("{{DATA}}", b64encode(data).decode())
