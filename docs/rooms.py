"""Draw the rooms of the library and what they import, as a Mermaid diagram, from the code itself.

python docs/rooms.py           print the diagram
python docs/rooms.py --write   put it between the markers in docs/design.md
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
DESIGN = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- rooms: begin -->\n", "<!-- rooms: end -->\n"


def find_rooms():
    """Return a dict from room to its files: tfbio's packages and single modules, and trainers."""
    rooms = {"trainers": sorted((ROOT / "trainers").glob("*.py"))}
    for path in sorted((ROOT / "tfbio").iterdir()):
        if (path / "__init__.py").exists():
            rooms[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and path.stem != "__init__":
            rooms[path.stem] = [path]
    return rooms


def read_imports(path):
    """Yield the dotted names that a file imports, functions' own imports included.

    Imports under `if TYPE_CHECKING` are left out: they are for annotations and never run.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_arrows(rooms):
    """Return a dict from room to the set of rooms it imports."""
    arrows = {}
    for room, paths in rooms.items():
        names = (name.split(".") for path in paths for name in read_imports(path))
        imported = {name[1] for name in names if name[0] == "tfbio" and len(name) > 1}
        arrows[room] = (imported & rooms.keys()) - {room}
    return arrows


def find_reachable(room, arrows, without):
    """Return the rooms that a room leads to, on ways that avoid another room."""
    reachable, waiting = set(), [room]
    while waiting:
        for target in arrows[waiting.pop()] - reachable - {without}:
            reachable.add(target)
            waiting.append(target)
    return reachable


def reduce(arrows):
    """Return the arrows without those that a longer way implies."""
    return {
        room: {
            target
            for target in targets
            if not any(
                target in find_reachable(other, arrows, without=room)
                for other in targets - {target}
            )
        }
        for room, targets in arrows.items()
    }


def draw():
    """Return the diagram as text."""
    rooms = find_rooms()
    lines = ["```mermaid", "graph TD"]
    for room, targets in reduce(find_arrows(rooms)).items():
        lines += [f"    {room} --> {target}" for target in sorted(targets)] or [f"    {room}"]
    return "\n".join([*lines, "```", ""])


def main():
    """Print the diagram, or write it into docs/design.md."""
    if sys.argv[1:] == ["--write"]:
        before, _, rest = DESIGN.read_text().partition(BEGIN)
        DESIGN.write_text(before + BEGIN + draw() + END + rest.partition(END)[2])
    else:
        print(draw(), end="")


if __name__ == "__main__":
    main()
