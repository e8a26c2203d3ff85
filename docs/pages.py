"""What the site has beside the pages of this folder, called by MkDocs (`hooks` in mkdocs.yml).

The texts of the project's root are pages, too, and are not written twice. A page that mkdocs.yml does not name
is put under More, and each decision under Decisions, so that adding one is adding a file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_ROOT = Path(__file__).parents[1]
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the texts of the root, and complete the navigation."""
    from mkdocs.structure.files import File

    for source, page in _PAGES.items():
        files.append(File.generated(config, page, content=_moved((_ROOT / source).read_text("utf-8"))))
    nav = list(config.nav or [])
    pages = sorted(file.src_uri for file in files.documentation_pages())
    decisions = [page for page in pages if page.startswith("decisions/")]
    more = [page for page in pages if page not in decisions and page not in set(_named(nav))]
    config.nav = [*nav, *([{"More": more}] if more else []), {"Decisions": decisions}]
    return files


def _moved(text: str) -> str:
    """Rewrite links of a text that lies in the root to where the pages lie."""
    text = text.replace("](docs/", "](")
    for source, page in _PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return re.sub(r"`docs/([\w./-]+\.md)`", r"[\1](\1)", text)


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [page for each in inside for page in _named(each)]
