"""Images, as files and as arrays, and their preparation."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.types import DataType
from PIL import Image

from mlflow_rnnmod.inputs import ImagePreparation, input_of, inputs_of_batch
from mlflow_rnnmod.inputs.images import MAX_PIXELS
from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.tracking.columns import read_inputs
from mlflow_rnnmod.tracking.directory import signature_for

COLOUR, GREY = (3, 6, 5), (1, 6, 5)
ANY = (3, 0, 0)


def pixels(shape: tuple[int, ...] = COLOUR, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=draw)


def picture(array: torch.Tensor) -> Image.Image:
    found = array.permute(1, 2, 0).numpy()
    return Image.fromarray(found[..., 0] if len(array) == 1 else found)


def file_of(image: Image.Image | torch.Tensor, kind: str = "PNG", **settings) -> bytes:
    out = io.BytesIO()
    (picture(image) if isinstance(image, torch.Tensor) else image).save(out, kind, **settings)
    return out.getvalue()


@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_all_forms_of_an_image_are_the_same(shape):
    array = pixels(shape)
    file = file_of(array)
    given = [array, array.numpy(), array.tolist(), file, bytearray(file), memoryview(file)]
    given += [base64.b64encode(file).decode(), base64.b64encode(file), picture(array)]
    if shape == GREY:
        given.append(array[0])
    for found in input_of("images").check(given, shape):
        assert found.dtype == torch.uint8 and torch.equal(found, array)


def test_tables_hold_files_and_arrays():
    array = pixels()
    file = file_of(array)
    text = base64.b64encode(file).decode()
    for cells in ([file] * 2, [text] * 2, [array.numpy()] * 2, [[file, file]]):
        for data in (
            pd.DataFrame({"image": pd.Series(cells, dtype=object)}),
            {"image": cells},
            [{"image": cell} for cell in cells],
        ):
            found = read_inputs(data, "images", COLOUR)
            assert len(found) == 2 and all(torch.equal(each, array) for each in found)
    assert read_inputs({"image": []}, "images", COLOUR) == []


def test_jpegs_are_read_as_pillow_reads_them():
    file = file_of(pixels((3, 40, 30)), "JPEG", quality=80)
    (found,) = input_of("images").check([file], ANY)
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(file)))).permute(2, 0, 1)
    assert torch.equal(found, expected)


def test_palettes_and_alpha_that_hides_nothing_are_colours():
    array = pixels()
    indexed = picture(array).quantize(8)
    (found,) = input_of("images").check([file_of(indexed)], COLOUR)
    assert torch.equal(found, torch.from_numpy(np.array(indexed.convert("RGB"))).permute(2, 0, 1))
    opaque = picture(array).convert("RGBA")
    assert torch.equal(input_of("images").check([file_of(opaque)], COLOUR)[0], array)
    both = Image.merge("LA", (picture(pixels(GREY)), Image.new("L", (5, 6), 255)))
    assert torch.equal(input_of("images").check([file_of(both)], GREY)[0], pixels(GREY))


def bomb(width: int, height: int) -> bytes:
    """A few bytes whose header promises a huge image."""
    file = bytearray(file_of(Image.new("1", (8, 8))))
    file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


GOOD = file_of(pixels())
SEE_THROUGH = picture(pixels()).convert("RGBA")
SEE_THROUGH.putpixel((0, 0), (0, 0, 0, 10))
WRONG = [
    (file_of(pixels((3, 7, 5))), ValueError, "is an image of 7 x 5 .* expected 6 x 5"),
    (pixels((3, 7, 5)), ValueError, "is an image of 7 x 5 .* resizes nothing"),
    (file_of(pixels(GREY)), ValueError, "mode 'L'; expected one in colours"),
    (pixels(GREY), ValueError, r"uint8 of shape \(1, 6, 5\); expected .*\(3, height, width\)"),
    (pixels((6, 5, 3)), ValueError, r"Channels come first: permute\(2, 0, 1\)"),
    (pixels().float(), TypeError, "is float32 of shape"),
    (pixels().long(), TypeError, "is int64 of shape"),
    (pixels().float().numpy() / 255, TypeError, "is float32 of shape"),
    ([[[0.5]]], TypeError, "is float32 of shape"),
    ([[[300]]], TypeError, "is int64 of shape"),
    (["a"], TypeError, r"is \['a'\]"),
    (GOOD[:-30], ValueError, "is a broken image"),
    (GOOD[:70] + bytes(9) + GOOD[79:], ValueError, "is a broken image"),
    (GOOD[:20], ValueError, "is a broken image|expected a whole PNG or JPEG"),
    (GOOD[:20] + bytes(9) + GOOD[29:], ValueError, "expected a whole PNG"),
    (
        b"GIF89a" + bytes(40),
        ValueError,
        "bytes that start with b'GIF89a.*expected a whole PNG or JPEG",
    ),
    (file_of(picture(pixels()), "GIF"), ValueError, "expected a whole PNG or JPEG"),
    (b"", ValueError, "is 0 bytes"),
    ("no base64!", ValueError, "is the text 'no base64!'; expected base64"),
    ("", ValueError, "is the text ''"),
    (None, TypeError, "is None"),
    (3.0, TypeError, "is 3.0"),
    ([], TypeError, r"is \[\]"),
    (file_of(SEE_THROUGH), ValueError, "is partly transparent"),
    (file_of(picture(pixels()).convert("CMYK"), "JPEG"), ValueError, "mode 'CMYK'"),
    (file_of(Image.new("I;16", (5, 6))), ValueError, "mode 'I;16'"),
    (bomb(100_000, 1_000), ValueError, r"100000 x 1000 pixels; expected at most"),
    (bomb(60_000, 60_000), ValueError, "Expected at most|expected at most"),
]


@pytest.mark.parametrize(("wrong", "error", "said"), WRONG)
def test_what_is_no_such_image_is_a_sentence(wrong, error, said):
    with pytest.raises(error, match=r"inputs\[1\]:? .*(" + said + ")") as found:
        input_of("images").check([GOOD, wrong], COLOUR)
    assert len(str(found.value)) < 400
    if not isinstance(wrong, list):
        with pytest.raises(MlflowException, match="image in row 1:? .*(" + said + ")"):
            read_inputs({"image": [GOOD, wrong]}, "images", COLOUR)


def test_a_header_is_enough_to_refuse_a_bomb(monkeypatch):
    """Nothing is decoded, and little memory is taken."""
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ValueError, match="expected at most"):
        input_of("images").check([bomb(side, side)], ANY)


def test_colour_for_grey_and_several_images_in_a_file():
    with pytest.raises(ValueError, match="mode 'RGB'; expected one in shades of grey"):
        input_of("images").check([file_of(pixels())], GREY)
    frames = [picture(pixels(seed=i)) for i in range(3)]
    animated = file_of(frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="holds 3 images; expected one"):
        input_of("images").check([animated], COLOUR)
    with pytest.raises(TypeError, match="inputs are Rows"):
        input_of("images").check(Rows(torch.zeros(1, *COLOUR)), COLOUR)


# --- preparation ---


def test_a_preparation_is_its_formula():
    prepare = ImagePreparation(size=(6, 5), mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2))
    found = prepare([pixels(), pixels(seed=1)]).values
    for row, array in zip(found, (pixels(), pixels(seed=1)), strict=True):
        for channel in range(3):
            expected = array[channel].double() / 255 - prepare.mean[channel]
            torch.testing.assert_close(
                row[channel].double(), expected / prepare.std[channel], rtol=1e-6, atol=1e-6
            )
    assert torch.equal(prepare.pixels(found)[0], pixels())


@settings(max_examples=30, deadline=None)
@given(
    size=st.none() | st.integers(1, 99) | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    grey=st.booleans(),
    numbers=st.lists(st.floats(0.01, 5), min_size=3, max_size=3),
    scale=st.sampled_from([1, 1 / 255, 0.5]),
    resize=st.sampled_from([None, "nearest", "bilinear", "bicubic"]),
)
def test_a_preparation_comes_back_from_its_json(size, grey, numbers, scale, resize):
    std = numbers[0] if grey else tuple(numbers)
    made = ImagePreparation(size, 1 if grey else None, 0, std, scale, resize)
    again = ImagePreparation.from_json(made.json)
    assert again == made and again.digest == made.digest and hash(again) == hash(made)
    assert made.digest == ImagePreparation.of(json.loads(made.json)).digest
    other = ImagePreparation(size, 1 if grey else None, 0.5, std, scale, resize)
    assert other.digest != made.digest


@pytest.mark.parametrize("how", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_as_pillow_does(how, channels):
    array = pixels((channels, 11, 17))
    prepare = ImagePreparation(size=(6, 5), channels=channels, resize=how)
    expected = np.asarray(picture(array).resize((5, 6), Image.Resampling[how.upper()]))
    found = prepare.resized(array).permute(1, 2, 0).numpy()
    assert np.array_equal(found.squeeze(2) if channels == 1 else found, expected)
    assert prepare.accepted == (channels, 0, 0)
    (row,) = prepare(input_of("images").check([file_of(array)], prepare.accepted)).values
    assert row.shape == (channels, 6, 5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size="),
        ({"size": (3, 4, 5)}, "size="),
        ({"size": "large"}, "size="),
        ({"size": True}, "size="),
        ({"mean": "dark"}, "mean='dark'"),
        ({"mean": (0.1, float("nan"), 0.2)}, "mean="),
        ({"std": 0.0}, "std=0.0, expected a number above 0"),
        ({"mean": (0.1, 0.2)}, "channels=2, expected 3"),
        ({"mean": (0.1, 0.2, 0.3), "channels": 1}, "expected one or 1"),
        ({"scale": -1}, "scale=-1"),
        ({"scale": (1.0,)}, "scale="),
        ({"resize": "lanczos"}, "resize='lanczos'"),
        ({"size": -1, "std": -1, "resize": 3}, "size=.*std=.*resize="),
    ],
)
def test_what_is_no_preparation_is_named(wrong, said):
    with pytest.raises(ValueError, match=f"preparation of images does not fit: .*{said}"):
        ImagePreparation(**wrong)


def test_what_is_no_preparation_at_all():
    for text in ("[1, 2]", "{", '{"zoom": 1}', "null"):
        with pytest.raises(ValueError, match="is not a preparation of images"):
            ImagePreparation.from_json(text)
    with pytest.raises(TypeError, match="zoom"):
        ImagePreparation.of({"zoom": 1})


def transform(name: str, **settings) -> object:
    return type(name, (SimpleNamespace,), {})(**settings)


def test_plain_transforms_of_torchvision_are_read():
    """They are known by their names and attributes: torchvision is not needed, and not here."""
    norm = transform("Normalize", mean=[0.1, 0.2, 0.3], std=(0.5, 0.5, 0.5))
    how = SimpleNamespace(value="bilinear")
    resize = transform("Resize", size=[6, 5], interpolation=how)
    first = transform("Compose", transforms=[resize, transform("ToTensor"), norm])
    to_dtype = transform("ToDtype", dtype=torch.float32, scale=True)
    second = transform("Compose", transforms=[resize, transform("ToImage"), to_dtype, norm])
    expected = ImagePreparation((6, 5), 3, (0.1, 0.2, 0.3), 0.5, resize="bilinear")
    for steps in (first, second, first.transforms):
        found = ImagePreparation.of(steps)
        assert (found.std, found.scale) == ((0.5,) * 3, 1 / 255)
        assert torch.equal(found([pixels((3, 9, 9))]).values, expected([pixels((3, 9, 9))]).values)
    assert ImagePreparation.of(transform("ToTensor")) == ImagePreparation()


def test_transforms_that_are_not_covered_are_named():
    flip = transform("RandomHorizontalFlip", p=0.5)
    with pytest.raises(ValueError, match="RandomHorizontalFlip.*none of the transforms"):
        ImagePreparation.of([flip, transform("ToTensor")])
    how = SimpleNamespace(value="bilinear")
    with pytest.raises(ValueError, match="One number keeps proportions"):
        ImagePreparation.of([transform("Resize", size=32, interpolation=how)])
    late = [transform("ToTensor"), transform("Resize", size=(3, 4), interpolation=how)]
    with pytest.raises(ValueError, match="Resize comes late"):
        ImagePreparation.of(late)
    with pytest.raises(ValueError, match="none of the transforms"):
        ImagePreparation.of(lambda image: image)


def test_what_is_left_open_is_the_networks():
    found = ImagePreparation(mean=0.5).fitted((1, 8, 9))
    assert (found.size, found.channels) == ((8, 9), 1)
    for wrong in (ImagePreparation(size=7), ImagePreparation(channels=3)):
        with pytest.raises(ValueError, match=r"and the model reads \(1, 8, 9\)"):
            wrong.fitted((1, 8, 9))


# --- pixels ---


def test_pixels_are_arrays():
    good = [np.ones(GREY, dtype=np.float32), np.zeros(GREY).tolist(), torch.zeros(GREY)]
    reads = input_of("pixels")
    found = reads.check(good, GREY)
    assert all(each.dtype == torch.float64 and each.shape == GREY for each in found)
    whole = np.stack([good[0], good[0]])
    whole.flags.writeable = False
    for data in (whole, {"image": list(whole)}, pd.DataFrame({"image": list(whole.tolist())})):
        assert len(read_inputs(data, "pixels", GREY)) == 2
    nested = np.empty(1, dtype=object)
    nested[0] = np.array([list(row) for row in good[0][0]])
    assert reads.check([nested], GREY)[0].shape == GREY


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (np.ones((3, 6, 5)), ValueError, r"has shape \(3, 6, 5\); expected an array of shape \(1"),
        (np.ones(30), ValueError, r"has shape \(30,\)"),
        (np.full(GREY, np.nan), ValueError, "holds nan"),
        (GOOD, TypeError, "was given its preparation"),
        ("text", TypeError, "was given its preparation"),
        (None, TypeError, "is None"),
        ([["a"]], TypeError, "is "),
    ],
)
def test_what_are_no_pixels_is_named(wrong, error, said):
    with pytest.raises(error, match=r"inputs\[1\] .*" + said):
        input_of("pixels").check([np.ones(GREY), wrong], GREY)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (torch.zeros(2, *GREY, dtype=torch.uint8), TypeError, "expected floats of shape"),
        (torch.zeros(2, *COLOUR), ValueError, r"\(1, 6, 5\)"),
        (torch.zeros(2, 30), ValueError, r"expected \(rows, channels, height, width\)"),
        (torch.full((2, *GREY), torch.inf), ValueError, "holds inf"),
    ],
)
def test_rows_that_are_no_pixels(values, error, said):
    with pytest.raises(error, match=said):
        input_of("pixels").check(Rows(values), GREY)


def test_batches_of_four_dimensions_are_pixels():
    floats = torch.zeros(2, 3, 4, 4)
    assert [each.name for each in inputs_of_batch(floats)] == ["pixels"]
    assert input_of("pixels").of_batch(floats) is floats
    assert input_of("pixels").of_batch(floats.to(torch.uint8)).dtype == torch.float32


# --- both ---


def test_signatures():
    (column,) = signature_for("images").inputs.inputs
    assert (column.name, column.type) == ("image", DataType.binary)
    (tensor,) = signature_for("pixels", size=COLOUR).inputs.inputs
    assert (tensor.type, tensor.shape) == (np.dtype("float32"), (-1, *COLOUR))


def test_made_up_images_are_two_images_patch_by_patch():
    rows = Rows(torch.arange(10.0)[:, None, None, None].expand(10, 3, 9, 8).clone())
    found = input_of("pixels").background(rows, None, 60, 3)
    again = input_of("images").background(rows, None, 60, 3)
    assert torch.equal(found.values, again.values) and found.values.shape == (60, 3, 9, 8)
    assert (found.lengths, found.targets) == (None, None)
    mixed = 0
    for image in found.values:
        assert torch.equal(image[0], image[1]) and len(image.unique()) <= 2
        for down in range(4):  # a patch is of one image
            for across in range(4):
                part = image[0, torch.arange(9) * 4 // 9 == down][:, 2 * across : 2 * across + 2]
                assert len(part.unique()) == 1
        mixed += len(image.unique()) == 2
    assert mixed > 40


def test_words_examples_and_pictures(tmp_path, monkeypatch):
    assert input_of("pixels").words(GREY).startswith("arrays of 1 channel, 6 x 5")
    assert input_of("images").words(ANY) == "images (PNG or JPEG), 3 channels, any size"
    assert len(input_of("pixels").check(eval(input_of("pixels").example(GREY)), GREY)) == 1
    (tmp_path / "image.png").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    assert len(input_of("images").check(eval(input_of("images").example(COLOUR)), COLOUR)) == 1
    assert input_of("images").parsed("image.png") == GOOD
    with pytest.raises(ValueError, match="is no file that can be read"):
        input_of("images").parsed("missing.png")
    prepare = ImagePreparation(size=(6, 5), mean=0.4, std=0.3, channels=3)
    values = prepare([pixels()]).values[0]
    shown = Image.open(io.BytesIO(input_of("images").picture(values, prepare)))
    assert np.array_equal(np.asarray(shown), pixels().permute(1, 2, 0).numpy())
    grey = Image.open(io.BytesIO(input_of("pixels").picture(torch.rand(GREY))))
    assert grey.mode == "L" and grey.getextrema() == (0, 255)
    assert input_of("pixels").picture(torch.zeros(2, 4, 4)) is None
    assert input_of("vectors").picture(torch.zeros(4)) is None


def test_which_sizes_go_together():
    images, pixel = input_of("images"), input_of("pixels")
    assert images.joint_size([ANY, COLOUR, ANY]) == COLOUR
    assert images.joint_size([ANY, ANY]) == ANY
    assert pixel.joint_size([COLOUR, COLOUR]) == COLOUR
    assert images.settled(ANY, COLOUR) == images.settled(COLOUR, COLOUR) == COLOUR
    assert images.settled((3, 4, 4), COLOUR) == (3, 4, 4)
    assert images.settled((1, 0, 0), COLOUR) == GREY
