"""Writes what docs/methods.md and README.md list of the methods, from their files.

python scripts/document_methods.py
"""

import importlib
import inspect
import pathlib
import re
import sys

import sparsejax as sj

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEAD = (
    "| method | paper | budget | keeps, beside the optimizer's state | needs "
    "| structures | choose it when |\n|---|---|---|---|---|---|---|\n"
)


def main():
    for name, text in documents().items():
        (ROOT / name).write_text(text)
        print(f"wrote {name}: {len(sj.METHODS)} methods")


def documents() -> dict[str, str]:
    """The documents as they should be, by file name."""
    methods = (ROOT / "docs/methods.md").read_text()
    readme = (ROOT / "README.md").read_text()
    return {
        "docs/methods.md": replaced(
            replaced(methods, "table", HEAD + "".join(map(row, sj.METHODS))),
            "paragraphs",
            "\n".join(map(paragraph, sj.METHODS)),
        ),
        "README.md": replaced(readme, "methods", names()),
    }


def replaced(document: str, marker: str, text: str) -> str:
    """The document with new text between ``<!-- marker -->`` and ``<!-- end -->``."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end -->)"
    found, count = re.subn(
        pattern, lambda match: match[1] + text + match[2], document, flags=re.DOTALL
    )
    if count != 1:
        sys.exit(f"the document has {count} places marked <!-- {marker} -->, not one")
    return found


def row(name: str) -> str:
    card = module(name).CARD
    needs = [f"`{need}=` in `update`" for need in card.needs]
    if card.dense_gradient is True:
        needs.append("the dense gradient at a move")
    elif card.dense_gradient and not card.asks:
        needs.append(f"the dense gradient at {card.dense_gradient}")
    needs += [card.asks] if card.asks else []
    cells = (
        f"[`sj.{name}`](#{name})",
        card.paper,
        card.budget,
        card.memory,
        "; ".join(needs),
        card.structures,
        card.choose,
    )
    return f"| {' | '.join(cells)} |\n"


def paragraph(name: str) -> str:
    """The docstring's words on what the method does, and its references."""
    document = inspect.getdoc(getattr(sj, name)) or ""
    words, _, rest = document.partition("\nArgs:")
    references = rest.partition("\nReferences:\n")[2]
    words = re.sub(r"``([^`]*)``", r"`\1`", words.strip())
    lines = [f'### <a id="{name}"></a>{title(name)}', "", words, ""]
    if references:
        cited = re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(references))
        lines += [cited, ""]
    return "\n".join(lines)


def title(name: str) -> str:
    return (module(name).__doc__ or name).partition(":")[0].strip()


def names() -> str:
    return ", ".join(f"[`sj.{n}`](docs/methods.md#{n})" for n in sj.METHODS) + ".\n"


def module(name: str):
    return importlib.import_module(f"sparsejax.methods.{name}")


if __name__ == "__main__":
    main()
