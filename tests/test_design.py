"""The design notes: the diagram of the rooms is what the imports say."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_the_diagram_of_the_rooms_is_drawn_from_the_imports():
    drawn = subprocess.run(
        [sys.executable, ROOT / "docs" / "rooms.py"], capture_output=True, text=True, check=True
    ).stdout
    assert "trainers --> studies" in drawn
    text = (ROOT / "docs" / "design.md").read_text()
    written = text.partition("<!-- rooms: begin -->\n")[2].partition("<!-- rooms: end -->")[0]
    assert written == drawn, "Run python docs/rooms.py --write."
