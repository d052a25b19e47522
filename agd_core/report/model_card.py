"""The model card: README.md beside an adapter's weights, in the form of the Hugging Face hub.

Form: https://huggingface.co/docs/hub/model-cards. The fenced Python in it runs as it stands, in the adapter's folder.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from agd_core.basics.config import BUILTIN, Config
from agd_core.basics.safe_files import printable
from agd_core.evaluation.protocol import in_words
from agd_core.evaluation.rows import WARNED, Row
from agd_core.methods import MethodConfig
from agd_core.methods.adapter_files import AdapterCard
from agd_core.models.backbones import backbone_class
from agd_core.models.doors.doors import GuidanceEmbedding
from agd_core.report.columns import TableCell, explained, tables, warned

README = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What is markup, or makes a link by itself: an address with ://, www. or @."""


@dataclass(frozen=True)
class ModelCard:
    """Everything that the card of one adapter says."""

    name: str
    """How the adapter is called."""
    base_model: Config
    """The base model's configuration; the usage lines build it."""
    method: MethodConfig
    files: AdapterCard
    """What adapter.json says, see `agd_core.methods.adapter_files.read_card`."""
    percent: float
    """The adapter's parameters, of the base network's."""
    training: Mapping[str, str]
    """Settings by name."""
    digests: Mapping[str, str]
    """What it was made from, by name."""
    command: str
    """What a person types to make it again."""
    evaluate_command: str
    """What a person types to evaluate it."""
    steps: int
    """Sampler steps of the usage lines."""
    guidance_scale: float
    """Of the usage lines."""
    scheduler: str
    """Of the usage lines."""
    rows: Sequence[Row] = ()
    """This adapter and all that needs no training, at every measured point; none: not evaluated yet."""
    protocol: Mapping[str, str] = field(default_factory=dict)
    """How the rows were measured, in short."""
    warnings: Sequence[str] = ()
    """Beside the warnings that the rows' numbers carry themselves."""

    @property
    def base_arguments(self) -> dict[str, Any]:
        """What the base model's configuration must be told: its source and what differs from the defaults."""
        return {"source": self.files.base_source} | self.base_model.model_dump(exclude_defaults=True)

    @property
    def takes_prompts(self) -> bool:
        """Whether the base model takes prompts."""
        return bool(backbone_class(self.files.backbone).encoded)

    @property
    def is_stock(self) -> bool:
        """Whether the usage lines are the stock pipeline's."""
        return self.takes_prompts and self.method.in_pipelines

    @property
    def is_pipeline_of_its_own(self) -> bool:
        """Whether `agd_core.write_pipeline` makes a folder of it."""
        door = backbone_class(self.files.backbone).door
        return self.method.relation == "finetune" and isinstance(door, GuidanceEmbedding)

    @property
    def is_builtin(self) -> bool:
        """Whether the base model ships with this package."""
        return self.files.base_source.startswith(BUILTIN)

    @property
    def stock_arguments(self) -> str:
        """How diffusers loads the base model."""
        arguments = self.base_arguments
        source = f"resolve_source({arguments['source']!r})" if self.is_builtin else repr(arguments["source"])
        revision = f", revision={arguments['revision']!r}" if arguments.get("revision") else ""
        return f"{source}{revision}, dtype=torch.{arguments.get('dtype', 'float32')}"


def render_card(card: ModelCard) -> str:
    """The card as Markdown with YAML front matter; every text is escaped."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters.update(
        text=_text, words=in_words, code=_code, fenced=_fenced, yaml=_yaml, cell=_cell, python=repr
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        card=card,
        base_class=type(card.base_model).__name__,
        arguments=", ".join(f"{name}={value!r}" for name, value in card.base_arguments.items()),
        tables=tables(card.rows),
        meanings=explained(card.rows),
        warnings=warned(card.rows) | dict.fromkeys(card.warnings, ""),
    )


def _text(value: object) -> str:
    """On one line, with nothing that Markdown or HTML would take for markup."""
    return _SPECIAL.sub(r"\\\1", _line(value))


def _code(value: object) -> str:
    """As code within a line, fenced by more backticks than it holds."""
    text = _line(value)
    fence = "`" * (1 + _longest_fence(text))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _fenced(value: str, language: str) -> str:
    """As a block of code, fenced by more backticks than it holds."""
    fence = "`" * max(3, 1 + _longest_fence(value))
    lines = "\n".join(printable(line) for line in value.strip().split("\n"))
    return f"{fence}{language}\n{lines}\n{fence}"


def _line(value: object) -> str:
    return printable(" ".join(str(value).split()))


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _yaml(value: object) -> str:
    """A JSON text is a YAML text; YAML takes no control characters, not even in quotes."""
    return json.dumps(printable(value), ensure_ascii=False)


def _cell(cell: TableCell) -> str:
    interval = f" ({cell.below})" if cell.below else ""
    verdict = f", {cell.verdict}" if cell.verdict else ""
    return _text(cell.text) + interval + (WARNED if cell.warnings else "") + verdict
