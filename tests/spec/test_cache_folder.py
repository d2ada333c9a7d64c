"""The cache is where the user says, or where the system keeps caches."""

from perceptkit.spec.cache_folder import default_cache


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("PERCEPTKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "perceptkit"
