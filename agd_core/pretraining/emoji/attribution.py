"""Whose drawings a folder of weights was trained on, as a file beside the weights.

CC BY 4.0 asks for the author, the licence and what was changed (section 3(a)); Apache-2.0 and MIT for their notices.
"""

from collections.abc import Collection
from pathlib import Path

from agd_core.basics.atomic import write_bytes
from agd_core.pretraining.emoji.packages import PACKAGES, SCOPE, Package

ATTRIBUTION = "ATTRIBUTION.md"
LICENCES = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
_TEXT = """# Where these weights come from

They were trained by AGD Pipeline (`agd pretrain`, docs/emoji.md) on emoji of these packages, which Iconify
(https://iconify.design) packs. The drawings were changed: drawn at 64 x 64 pixels on white, and learnt from; no
drawing is in this folder.

| npm package | version | style | licence | author | drawings |
| --- | --- | --- | --- | --- | --- |
{rows}

The licences:

{licences}

No author of a drawing endorses these weights. They come without warranty, under the Apache License 2.0.
"""


def write_attribution(folder: Path, styles: Collection[str] = ()) -> None:
    """Write the file.

    Args:
        folder: with the weights.
        styles: what was learnt beside the base styles.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    learnt = [package for package in PACKAGES if package.is_base or package.style in styles]
    used = sorted({package.licence for package in learnt})
    text = _TEXT.format(
        rows="\n".join(map(_row, learnt)), licences="\n".join(f"- {name}: {LICENCES[name]}" for name in used)
    )
    write_bytes(text.encode(), folder / ATTRIBUTION)


def _row(package: Package) -> str:
    cells = (f"{SCOPE}/{package.name}", package.version, package.style, package.licence, package.author, package.page)
    return f"| {' | '.join(cells)} |"
