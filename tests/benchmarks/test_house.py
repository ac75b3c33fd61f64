"""What ``benchmarks.house`` counts."""

from pathlib import Path

from benchmarks.house import branches, files, passed
from mlflow_rnnmod.inputs import input_of


def test_branches_are_comparisons_with_the_name_of_a_kind(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        'a = kind == "tags"\n'
        'b = "features" != kind\n'
        'c = kind in ("text", "label")\n'
        'd = kind == "other"\n'
        'e = {"tags": 1}["tags"]\n'
    )
    assert list(branches(path)) == [1, 2, 3]


def test_a_file_is_passed_where_something_in_it_is_called() -> None:
    with passed() as found:
        input_of("features")
    assert [path.parent.name for path in found] == ["inputs"]
    assert found <= set(files())
    with passed() as found:
        len("nothing of ours")
    assert not found
