"""What users see: every broken file in bad/ gives exactly the message beside it, and never a traceback."""

import re
from pathlib import Path

import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.load import load_recipe, load_tasks

BAD = Path(__file__).parent / "bad"
NAMES = sorted(path.stem for path in BAD.glob("*.yaml"))


def message_of(name: str) -> str:
    """The error of one file; a comment `# --set a=b` in its first line stands for the command line's."""
    text = (BAD / f"{name}.yaml").read_text(encoding="utf-8", errors="replace")
    overrides = re.findall(r"--set (\S+)", text.split("\n")[0])
    load = load_recipe if name.startswith("recipe_") else load_tasks
    with pytest.raises(SpecError) as caught:
        load(f"{name}.yaml", overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_message(name, monkeypatch):
    monkeypatch.chdir(BAD)
    assert message_of(name) + "\n" == (BAD / f"{name}.expected.txt").read_text()


def test_there_are_enough():
    assert len(NAMES) >= 20
