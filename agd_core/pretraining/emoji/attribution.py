"""Whose drawings a folder of weights was trained on, as a file beside the weights.

CC BY 4.0 asks for the author, the copyright line, the licence and what was changed (section 3(a)(1)), Apache-2.0 and
MIT for the copyright line and the licence's text; AGD Pipeline's own LICENSE is Apache-2.0's.
"""

from collections.abc import Collection
from pathlib import Path

from agd_core.basics.atomic import write_bytes
from agd_core.pretraining.emoji.packages import PACKAGES, SCOPE, Package

ATTRIBUTION = "ATTRIBUTION.md"
LICENCES = {
    "Apache-2.0": "Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "MIT License, https://opensource.org/license/mit",
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International, https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": (
        "Creative Commons Attribution-ShareAlike 4.0 International, https://creativecommons.org/licenses/by-sa/4.0/"
    ),
}
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
_TEXT = """# Where these weights come from

They were trained by AGD Pipeline (`agd pretrain`, docs/emoji.md) on emoji of these packages, which Iconify
(https://iconify.design) packs. The drawings were changed: drawn at 64 x 64 pixels on white, and learnt from; no
drawing is in this folder.

| npm package | version | style | licence of the drawings | author | drawings |
| --- | --- | --- | --- | --- | --- |
{rows}

Their authors' notices, as they write them:

{notices}

The licences, all of which disclaim warranties:

{licences}

The Apache License's text is also the LICENSE of AGD Pipeline. The MIT License's, for the drawings under it:

{mit}

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
    used = sorted({package.drawings_licence for package in learnt})
    text = _TEXT.format(
        rows="\n".join(map(_row, learnt)),
        notices="\n".join(f"- {package.style}: {package.notice}" for package in learnt),
        licences="\n".join(f"- {name}: {LICENCES[name]}" for name in used),
        mit=MIT,
    )
    write_bytes(text.encode(), folder / ATTRIBUTION)


def _row(package: Package) -> str:
    name, licence = f"{SCOPE}/{package.name}", package.drawings_licence
    return f"| {' | '.join((name, package.version, package.style, licence, package.author, package.page))} |"
