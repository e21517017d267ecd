"""Which mask goes with which picture, and how the results are named."""

from pathlib import Path

import pytest

from jaxpaint.cli.outputs import check_existing, make_folders, plan_jobs
from jaxpaint.cli.pairing import Pair, find_pairs, pair_by_name, pictures_in
from jaxpaint.errors import InputError


def paths(text: str) -> list[Path]:
    return [Path(name) for name in text.split()]


def pair(images: str, masks: str) -> list[tuple[str, str, str]]:
    found = pair_by_name(paths(images), paths(masks))
    assert not found.lone_images
    assert not found.lone_masks
    return [(str(p.image), str(p.mask), p.stem) for p in found.pairs]


def test_masks_of_the_same_stem():
    assert pair("i/a.jpg i/b.png", "m/b.bmp m/a.png") == [
        ("i/a.jpg", "m/a.png", "a"),
        ("i/b.png", "m/b.bmp", "b"),
    ]


def test_one_mask_named_after_the_picture_keeps_its_name():
    assert pair("i/a.jpg", "m/a_mask.png") == [("i/a.jpg", "m/a_mask.png", "a")]


def test_each_of_several_masks_names_its_result():
    assert pair("i/a.jpg", "m/a_mask001.png m/a_mask002.png") == [
        ("i/a.jpg", "m/a_mask001.png", "a_mask001"),
        ("i/a.jpg", "m/a_mask002.png", "a_mask002"),
    ]


def test_a_mask_belongs_to_the_picture_with_the_longest_fitting_stem():
    assert pair("i/a.png i/a_mask1.png", "m/a_mask1_mask.png m/a_mask2.png") == [
        ("i/a.png", "m/a_mask2.png", "a"),
        ("i/a_mask1.png", "m/a_mask1_mask.png", "a_mask1"),
    ]


def test_pictures_and_masks_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_mask001.png", "b.JPG", "b_mask.png", "a.txt", ".c.png"):
        Path(name).touch()
    found = find_pairs(Path("."), ".")
    assert not found.lone_images
    assert found.pairs == [
        Pair(Path("a.png"), Path("a_mask001.png"), "a"),
        Pair(Path("b.JPG"), Path("b_mask.png"), "b"),
    ]


def test_a_common_mask_in_the_folder_of_pictures_is_no_picture(tmp_path):
    for name in ("a.png", "b.png", "hole.png"):
        (tmp_path / name).touch()
    found = find_pairs(tmp_path, str(tmp_path / "hole.png"))
    assert [(p.stem, p.mask) for p in found.pairs] == [
        ("a", tmp_path / "hole.png"),
        ("b", tmp_path / "hole.png"),
    ]


def test_files_without_a_partner_are_told():
    found = pair_by_name(paths("i/a.png i/b.png"), paths("m/a.png m/c.png m/bmask.png"))
    assert [p.stem for p in found.pairs] == ["a"]
    assert found.lone_images == paths("i/b.png")
    assert found.lone_masks == paths("m/c.png m/bmask.png")


@pytest.mark.parametrize(
    ("images", "masks"),
    [("i/a.png i/a.jpg", "m/a.png"), ("i/a.png", "m/a.png m/a.bmp")],
)
def test_two_files_of_one_stem_are_ambiguous(images, masks):
    with pytest.raises(InputError, match="same stem"):
        pair(images, masks)


def test_two_pictures_of_one_stem_are_ambiguous_with_a_common_mask_too(tmp_path):
    for name in ("i/a.png", "i/a.jpg", "m.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for mask in ("alpha", str(tmp_path / "m.png")):
        with pytest.raises(InputError, match="same stem"):
            find_pairs(tmp_path / "i", mask)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="none does not exist"):
        find_pairs(tmp_path / "none", "alpha")
    with pytest.raises(InputError, match="nomask does not exist"):
        find_pairs(tmp_path, str(tmp_path / "nomask"))
    with pytest.raises(InputError, match="holds no picture"):
        pictures_in(tmp_path)


# Outputs


def names(jobs) -> list[str]:
    return [str(path) for job in jobs for path in job.outputs()]


def plan(output, pairs="i/a.JPG", is_folder=False, kind=None, samples=1, save=()):
    found = [Pair(path, Path("m.png"), path.stem) for path in paths(pairs)]
    return plan_jobs(found, output, is_folder, kind, samples, save)


def test_one_picture_into_a_file_or_a_folder(tmp_path):
    assert names(plan("out/x.webp")) == ["out/x.webp"]
    assert names(plan("out")) == ["out/a.png"]
    assert names(plan("out.v2/")) == ["out.v2/a.png"]
    assert names(plan(str(tmp_path))) == [str(tmp_path / "a.png")]


def test_formats():
    assert names(plan("out", kind="jpg")) == ["out/a.jpg"]
    assert names(plan("out", kind="same", pairs="a.JPG b.tiff")) == [
        "out/a.jpg",
        "out/b.tiff",
    ]
    assert names(plan("x.jpeg", kind="jpg")) == ["x.jpeg"]
    for output, kind in (("x.png", "jpg"), ("x.gif", None), ("x.jpg", "png")):
        with pytest.raises(InputError, match=output):
            plan(output, kind=kind)


def test_samples_are_numbered_and_figures_named_by_stem():
    assert names(plan("o/x.jpg", samples=2, save=["masked", "compare"])) == [
        "o/x_00.jpg",
        "o/x_01.jpg",
        "o/x_masked.png",
        "o/x_compare.png",
        "o/x_deviation.png",
    ]


def test_many_results_do_not_go_into_one_file():
    for pairs, is_folder in (("a.png b.png", False), ("a.png", True)):
        with pytest.raises(InputError, match="name a folder"):
            plan("x.png", pairs=pairs, is_folder=is_folder)


def test_two_results_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"both write out/a_masked.png"):
        plan("out", pairs="a.png a_masked.png", save=["masked"])


def test_inputs_are_never_overwritten(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a.png is an input"):
        plan(str(tmp_path), pairs=str(tmp_path / "a.png"))


def test_existing_results_need_a_word(tmp_path):
    jobs = plan(str(tmp_path), pairs="a.jpg b.jpg")
    check_existing(jobs, overwrite=False, skip=False)
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match=r"b.png exists; use --overwrite"):
        check_existing(jobs, overwrite=False, skip=False)
    check_existing(jobs, overwrite=True, skip=False)
    check_existing(jobs, overwrite=False, skip=True)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_existing(jobs, overwrite=True, skip=False)


def test_folders_are_made_and_tried(tmp_path):
    make_folders(plan(str(tmp_path / "x" / "y")))
    assert list((tmp_path / "x" / "y").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        make_folders(plan(str(tmp_path / "file" / "y")))
