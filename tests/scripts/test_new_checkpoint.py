"""antiphon new-checkpoint."""

from __future__ import annotations

from pathlib import Path


def test_a_checkpoint_is_written_and_described_in_one_line(antiphon, tmp_path: Path) -> None:
    code, output, error = antiphon("new-checkpoint", tmp_path / "made", "--seed", 3)
    assert (code, error) == (0, "")
    assert (
        output.startswith(f"{tmp_path / 'made'}: qwen3_omni_moe, size tiny, seed 3, ")
        and output.count("\n") == 1
    )
    assert (tmp_path / "made" / "config.json").is_file()


def test_a_checkpoint_of_the_second_family_is_written(antiphon, tmp_path: Path) -> None:
    code, output, error = antiphon("new-checkpoint", tmp_path / "made", "--family", "qwen3_5_omni")
    assert (code, error) == (0, "") and output.startswith(
        f"{tmp_path / 'made'}: qwen3_5_omni, size tiny, seed 0, "
    )
    assert (tmp_path / "made" / "codec_decode_online" / "model_weights.pt").is_file()


def test_a_folder_in_use_is_refused(antiphon, tiny_checkpoint: Path) -> None:
    code, output, error = antiphon("new-checkpoint", tiny_checkpoint)
    assert (code, output) == (2, "")
    assert str(tiny_checkpoint) in error and error.count("\n") == 1


def test_an_unknown_size_or_family_is_refused_and_leaves_nothing(antiphon, tmp_path: Path) -> None:
    for option in (("--size", "enormous"), ("--family", "nobody")):
        code, _, error = antiphon("new-checkpoint", tmp_path / "made", *option)
        assert code == 2 and option[1] in error
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_is_none_is_refused_and_leaves_nothing(antiphon, tmp_path: Path) -> None:
    code, output, error = antiphon("new-checkpoint", tmp_path / "made", "--seed", -1)
    assert (code, output, error) == (
        2,
        "",
        "antiphon: seed is -1, expected an integer from 0 to 18,446,744,073,709,551,615.\n",
    )
    assert list(tmp_path.iterdir()) == []
