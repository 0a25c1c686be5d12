"""Which modules are ours, and what each imports, read from their text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("include", "dags", "plugins", "scripts", "benchmarks")


def modules(*folders: str) -> dict[str, Path]:
    """Return our modules by their dotted names."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(module: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield all that a module imports: the absolute name of a module, and the name taken."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            yield from ((base, alias.name) for alias in node.names)


def imported_modules(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return which of the known modules one imports, `from package import module` included."""
    taken = set()
    for base, name in imports(module, path):
        whole = f"{base}.{name}"
        taken.add(whole if whole in known else base)
    return (taken & known.keys()) - {module}


def top(name: str) -> str:
    return name.partition(".")[0]
