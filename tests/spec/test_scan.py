"""Files looked at in threads: their order, the first failure, and the bar."""

import threading

import pytest

from perceptkit.spec.scan import CHUNK, scan


def test_order_and_threads():
    names = set()

    def look(item: int) -> int:
        names.add(threading.current_thread().name)
        return item * item

    assert scan(range(5 * CHUNK + 3), look, "squares") == [i * i for i in range(5 * CHUNK + 3)]
    assert all(name.startswith("scan") for name in names)


def test_nothing_to_look_at():
    assert scan([], str, "nothing") == [] and scan([], str, "nothing", progress=True) == []


def test_the_first_failure_is_raised():
    def look(item: int) -> None:
        if item in (20, 40):
            raise ValueError(str(item))

    with pytest.raises(ValueError, match="20"):
        scan(range(100), look, "failing")


def test_the_bar_is_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich knows
    assert scan(range(40), str, "counting", progress=True) == [str(i) for i in range(40)]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "counting" in printed.err
