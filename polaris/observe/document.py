"""An HTML page that needs no network and in which nothing that a model wrote can run.

Its Content-Security-Policy admits only the style sheet and the script whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib

from polaris.observe.assets import SCRIPT, STYLE
from polaris.observe.markup import safe


def document(title: str, body: str) -> str:
    """The page; `body` is markup whose values went through `polaris.observe.markup.safe`."""
    policy = f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{safe(title)} - Polaris</title><style>{STYLE}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
