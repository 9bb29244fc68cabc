"""The notebooks run from top to bottom, with the preset made for tests."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def code_of(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_python_without_results(path: Path) -> None:
    cells = code_of(path)
    assert len(cells) > 3
    for cell in cells:
        compile(cell, path.name, "exec")
    raw = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in raw)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    names: dict = {"__name__": "__main__"}
    for cell in code_of(path):
        line = next((row for row in cell.splitlines() if row.startswith("PRESET = ")), None)
        if line:
            preset = line.split('"')[1]
            cell = cell.replace(line, f'PRESET = "{preset}:tiny"')
        exec(compile(cell, path.name, "exec"), names)
    assert (tmp_path / "runs" / "notebook" / "index.html").is_file()
    assert (tmp_path / "body.glb").is_file()
    assert "pa_mpjpe" in capsys.readouterr().out
