"""Recordings and sidecars that cannot be what they say: refused in one line that names the key."""

import fcntl
import json
import os

import pytest
import torch

import gen_eval_set
from lvd.errors import InputError
from lvd.utils import locks
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import journals
from tests.worlds.recording_world import LABELS, write_labels
from tests.worlds.refusals import refused
from tests.worlds.x0_rows import ROWS, SHAPE, STEPS, create, filled, info_of, x0_of

WHOLE = (ROWS, STEPS, *SHAPE)
LONG = "9" * 5_000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A whole recording; its sidecar's content is given too."""
    path = filled(tmp_path_factory.mktemp("recorded") / "pred_x0.pth")
    return path, json.loads(path.with_suffix(".json").read_text())


def opened_with(recorded, tmp_path, sidecar):
    """Open the recording beside another sidecar."""
    path = tmp_path / "pred_x0.pth"
    path.symlink_to(recorded[0])
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return open_x0_file(path)


META = [
    (None, "meta: found None"),
    ([], "meta: found []"),
    ({"config": None}, "meta.config: found None"),
    ({"config": [1]}, "meta.config: found [1]"),
    ({"x0_mode": 5}, "meta.x0_mode: found 5"),
    ({"x0_mode": "both"}, "meta.x0_mode: found 'both'; 'true' or 'released' is needed"),
    ({"scheduler": "x"}, "meta.scheduler: found 'x'"),
    ({"scheduler": {"beta_end": 1}}, "key 'meta.scheduler.class' is missing"),
    ({"scheduler": {"class": 5}}, "meta.scheduler.class: found 5"),
    ({"guidance_scale": "7"}, "meta.guidance_scale: found '7'"),
    ({"guidance_scale": float("nan")}, "meta.guidance_scale: found nan"),
    ({"guidance_scale": -1}, "meta.guidance_scale: found -1"),
    ({"scaling_factor": 0}, "meta.scaling_factor: found 0"),
    ({"pipeline": 5}, "meta.pipeline: found 5"),
]
TOP = [
    ({"shape": []}, "shape: found []"),
    ({"shape": ["5"] * 6}, "shape.0: found '5'"),
    ({"shape": [*WHOLE, 1]}, "shape: found a list of 7 entries"),
    ({"shape": [*WHOLE[:5], -8]}, "shape.5: found -8"),
    ({"shape": [*WHOLE[:5], True]}, "shape.5: found True"),
    ({"shape": [*WHOLE[:5], 10**30]}, "shape.5: found 1"),
    ({"shape": [ROWS, STEPS, 8, 4, 2, 8]}, "the two files do not belong together"),
    ({"dtype": 5}, "dtype: found 5"),
    ({"dtype": "float16"}, "says dtype float16, the tensor in pred_x0.pth has float32"),
    ({"format": "1"}, "format '1', this version reads 1"),
    ({"format": 10**4000}, "format a number of about"),
    ({"rows": None}, "rows: found None"),
]
ROW = [
    ({LONG: {}}, "rows.999"),
    ({"-1": {}}, "rows.-1"),
    ({"٣": {}}, "rows."),
    ({"5": {}}, "row '5' is outside the file's 5 rows"),
    ({"0": None}, "rows.0: found None"),
    ({"0": {"timesteps": "abc"}}, "rows.0.timesteps: found 'abc'"),
    ({"0": {"timesteps": [9, 5]}}, "row 0: 2 timesteps, the file has 3 steps"),
    ({"0": {"timesteps": [9, 5, "1"]}}, "rows.0.timesteps.2: found '1'"),
    ({"0": {"timesteps": [9, 5, float("inf")]}}, "rows.0.timesteps.2: found inf"),
    ({"0": {"timesteps": [9, 5, 10**400]}}, "rows.0.timesteps.2: found a number of about 401"),
    ({"0": {"levels": [0, 1]}}, "row 0: 2 levels, the file has 3 steps"),
    ({"0": {"levels": [0, 1, "loud"]}}, "rows.0.levels.2: found 'loud'"),
    ({"0": {"levels": [0, 1, float("nan")]}}, "rows.0.levels.2: found nan"),
    ({"0": {"levels": [0, 1, 99]}}, "rows.0.levels.2: found 99"),
    ({"0": {"guidance_scale": "4"}}, "rows.0.guidance_scale: found '4'"),
    ({"0": {"prompt": 5}}, "rows.0.prompt: found 5"),
    ({"0": {"video": "../../out"}}, "rows.0.video: found '../../out'"),
]


@pytest.mark.parametrize(
    "change, said",
    [
        *TOP,
        *(({"meta": meta}, said) for meta, said in META),
        *(({"rows": rows}, said) for rows, said in ROW),
    ],
)
def test_a_sidecar_that_does_not_fit(recorded, tmp_path, change, said):
    with pytest.raises(InputError) as error:
        opened_with(recorded, tmp_path, {**recorded[1], **change})
    message = str(error.value)
    assert "pred_x0.json: " in message and said in message, message
    assert "\n" not in message and len(message.replace(str(tmp_path), "")) < 250


def test_a_row_that_stands_twice(recorded, tmp_path):
    text = json.dumps(recorded[1]).replace('"rows": {', '"rows": {"3": {}, ')
    with pytest.raises(InputError, match="key '3' stands twice"):
        path = tmp_path / "pred_x0.pth"
        path.symlink_to(recorded[0])
        path.with_suffix(".json").write_text(text)
        open_x0_file(path)


@pytest.mark.parametrize(
    "meta, info",
    [
        ({}, {}),
        ({"about": [1], "prompts": "mine"}, {"seed": None, "note": {"a": 1}}),
        ({"x0_mode": "released", "scaling_factor": None}, {"timesteps": None}),
        ({"scheduler": {"class": "Any", "beta": None}}, {"timesteps": [9, 5.5, 1]}),
    ],
)
def test_what_a_sidecar_may_leave_out_or_add(recorded, tmp_path, meta, info):
    sidecar = {**recorded[1], "meta": meta, "rows": {"2": info}, "more": 1}
    found = opened_with(recorded, tmp_path, sidecar)
    assert found.rows == [2] and found.info == {2: info} and found.meta == meta


@pytest.mark.parametrize(
    "line, said",
    [
        (b"[]", "line 2 is damaged"),
        (b"\xff", "line 2 is damaged"),
        (b"[" * 100_000, "line 2 is damaged"),
        (f'{{"row": {LONG}, "info": {{}}}}'.encode(), "line 2 is damaged"),
        (b'{"row": true, "info": {}}', "line 2: row True is outside"),
        (b'{"row": 5, "info": {}}', "line 2: row 5 is outside the file's 5 rows"),
        (b'{"row": 2}', "line 2 is damaged"),
        (b'{"row": 2, "info": null}', "line 2: info: found None"),
        (b'{"row": 2, "info": {"timesteps": "abc"}}', "line 2: info.timesteps: found 'abc'"),
        (b'{"row": 2, "info": {}, "more": 1}', "line 2: unknown key 'more'"),
    ],
)
def test_a_line_of_a_journal_that_does_not_fit(tmp_path, line, said):
    writer = create(tmp_path / "pred_x0.pth")
    writer.write_row(1, x0_of(1), info_of(1))
    (journal,) = journals(writer.path)
    with open(journal, "ab") as f:
        f.write(line + b"\n")
    with pytest.raises(InputError) as error:
        open_x0_file(writer.path)
    assert f"{journal.name}: {said}" in str(error.value)
    writer._file.close()


def tensors():
    x0 = torch.zeros(2, STEPS, *SHAPE)
    return {
        "sparse": (x0.to_sparse(), "a plain tensor that holds its values is needed"),
        "meta": (x0.to("meta"), "a plain tensor that holds its values is needed"),
        "nested": (torch.nested.nested_tensor([x0[0], x0[1, :2]]), "a nested tensor; a plain"),
        "five": (x0[0], "[video, step, channel, frame, height, width] is needed"),
        "empty": (x0[:0], "tensor of shape [0, 3, 4, 2, 8, 8]"),
        "whole": (x0.int(), "torch.int32 tensor, a floating point one is needed"),
        "small": (x0.to(torch.float8_e4m3fn), "torch.float8_e4m3fn tensor"),
        "complex": (x0.to(torch.complex64), "torch.complex64 tensor"),
        "one value": (torch.zeros(1).expand(10**6, 50, *SHAPE), "the file holds 4 bytes of values"),
        "list": ([1], "holds a list, one tensor"),
    }


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
@pytest.mark.parametrize("kind", sorted(tensors()))
def test_a_tensor_that_is_no_recording(tmp_path, capsys, kind):
    content, said = tensors()[kind]
    path = tmp_path / "pred_x0.pth"
    torch.save(content, path)
    labels = write_labels(tmp_path / "label.csv", LABELS)
    words = ["--pred_x0", str(path), "--label_file_dir", str(labels)]
    refused(gen_eval_set.main([*words, "--save_path", str(tmp_path / "e.pth")]), capsys, said)


@pytest.mark.parametrize("form", ["permuted", "part", "parameter", "double"])
def test_bare_recordings_of_other_code_are_read(tmp_path, form):
    values = torch.randn(2, STEPS, *SHAPE)
    content = {
        "permuted": values.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0),
        "part": torch.stack([values, values])[1],
        "parameter": torch.nn.Parameter(values),
        "double": values.double(),
    }[form]
    torch.save(content, tmp_path / "pred_x0.pth")
    found = open_x0_file(tmp_path / "pred_x0.pth")
    assert torch.equal(found.tensor.float(), values) and found.rows == [0, 1]
    assert not found.tensor.requires_grad and len(found.fingerprint) == 64


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_part_of_a_copy(recorded, tmp_path, share):
    content = recorded[0].read_bytes()
    (tmp_path / "pred_x0.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"truncated: its end is missing; copy it again\)"):
        open_x0_file(tmp_path / "pred_x0.pth")
    (tmp_path / "pred_x0.pth").write_bytes(b"\0" * len(content))
    with pytest.raises(InputError, match="begins with zeros or is empty; copy it again"):
        open_x0_file(tmp_path / "pred_x0.pth")


def test_a_folder_that_another_process_locks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "SHORT", 0.1)
    monkeypatch.setattr(locks, "LONG", 0.1)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another running process locks this folder"):
        create(tmp_path / "pred_x0.pth")
    assert "waiting for another process" in capsys.readouterr().err
    os.close(handle)
    create(tmp_path / "pred_x0.pth").close()
