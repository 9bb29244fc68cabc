from pathlib import Path

from jaxrecon.io.places import data_folder, manual_folder


def test_folders_of_the_environment(monkeypatch):
    for name in ("JAXRECON_DATA", "JAXRECON_MANUAL"):
        monkeypatch.delenv(name, raising=False)
    assert data_folder() == Path.home() / ".cache/jaxrecon/datasets"
    assert manual_folder() == data_folder() / "downloads/manual"
    monkeypatch.setenv("JAXRECON_DATA", "~/data")
    assert data_folder() == Path.home() / "data"
    assert manual_folder() == Path.home() / "data/downloads/manual"
    assert manual_folder("/elsewhere") == Path("/elsewhere/downloads/manual")
    monkeypatch.setenv("JAXRECON_MANUAL", "~/licensed")
    assert manual_folder("/elsewhere") == manual_folder() == Path.home() / "licensed"
