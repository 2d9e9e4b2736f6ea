"""download.py --what unsafe_dataset, against a hub of our own; its prompts are harmless."""

import json
import os
import subprocess
from argparse import Namespace

import pytest

from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml
from MagicTime.prepare_weights import download, unsafe_dataset
from MagicTime.prepare_weights.unsafe_dataset import choose_files
from MagicTime.prepare_weights.unsafe_texts import read_texts
from MagicTime.utils.prompts import read_prompts
from tests.worlds import hub_server

REPOSITORY = f"datasets/{unsafe_dataset.REPOSITORY}"
SECRET = "zebra"  # in every prompt: it must never be shown
TEXTS = [f"a {SECRET}, number {row}" for row in range(12)]
LABELS = "1,2,3\n0,2,5\n1.0,3,\n7,,\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = hub_server.Hub(
        {
            f"{REPOSITORY}/README.md": b"# data\n",
            f"{REPOSITORY}/.gitattributes": b"*.mp4 filter=lfs\n",
            f"{REPOSITORY}/label_new.csv": LABELS.encode(),
            f"{REPOSITORY}/prompts/unsafe_prompt.txt": "\n".join(TEXTS).encode(),
            f"{REPOSITORY}/videos/0000.mp4": b"a video",
        }
    )
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.close()


@pytest.fixture
def run(hub, tmp_path, capfd):
    """Run the script; everything that it says is searched for prompts."""

    def run(*flags, folder=tmp_path / "data"):
        words = ["--what", "unsafe_dataset", "--dir", folder, *flags]
        status = download.main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert SECRET not in out + err
        return status, out, err.strip().split("\n")[-1]

    return run


def test_labels_and_prompts_are_laid_out(hub, run, tmp_path):
    folder = tmp_path / "data"
    status, out, error = run()
    assert status == 0, error
    assert (folder / "prompts.txt").read_text().splitlines() == TEXTS
    assert len(read_prompts(folder / "prompts.txt")) == 12
    assert read_labels(folder / "label.csv", 12).columns == [[0, 1, 7], [2, 3], [5]]
    assert "12 prompts" in out and "6 videos labelled" in out and "group1: 3 videos" in out
    assert "other than on its page: 2000 videos" in out
    assert not hub.bodies[f"{REPOSITORY}/videos/0000.mp4"] and hub.tokens == {"Bearer hf_secret"}
    about = load_yaml(folder / "unsafe_dataset.yaml")
    assert about["revision"] == hub_server.COMMIT and about["prompts"] == 12
    asked = sum(hub.bodies.values())
    assert (folder / ".gitignore").read_text() == "*\n"

    status, out, error = run()
    assert "nothing is done" in out, error
    assert sum(hub.bodies.values()) == asked
    assert run("--check")[0] == 0
    assert "there" in run("--dry-run")[1]
    (folder / "label.csv").write_text("1\n0\n")
    status, _, error = run("--revision", "v2")
    assert status == 2 and "label.csv: was changed since" in error
    (folder / "label.csv").unlink()
    assert run()[0] == 0 and (folder / "label.csv").read_text() == LABELS
    (folder / "source" / "label_new.csv").write_text("1\n0\n")
    status, _, error = run("--check")
    assert status == 2 and "source/label_new.csv" in error


def test_the_shipped_config_names_where_they_lie():
    config = read_data_config(ROOT / "MagicTime/sample_configs/build_x0_real.yaml", Namespace())
    assert config.label_file_dir == unsafe_dataset.DEFAULT_DIR / "label.csv"
    ignored = ["git", "check-ignore", f"{unsafe_dataset.FOLDER}/prompts.txt"]
    if (ROOT / ".git").exists():
        assert subprocess.run(ignored, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "fault, flags, said",
    [
        ({"unsafe_prompt.txt": "gated"}, (), "access is gated"),
        ({"label_new.csv": "private"}, (), "needs a token (HF_TOKEN); the hub answers 401"),
        ({REPOSITORY: "private"}, (), "needs a token (HF_TOKEN); the hub answers 401"),
        ({}, ("--revision", "v9"), "no such revision"),
        ({}, ("--label_file", "l.csv"), "no such file; it may be label_new.csv"),
        ({}, ("--prompt_file", "label_new.csv"), "headed"),
        ({}, ("--what", "unsafe_dataset", "base"), "goes alone"),
        ({}, ("--what", "base", "--label_file", "x"), "--label_file goes with --what unsafe_data"),
        ({}, ("--check",), "nothing was loaded yet"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(hub, run, fault, flags, said):
    hub.faults, hub.revisions = dict(fault), {"main"}
    status, _, error = run(*flags)
    assert status == 2 and error.startswith("error: ") and said in error and len(error) < 300
    if fault:
        assert "https://huggingface.co/datasets/pypy/unsafe_generated_video_dataset" in error


def test_half_a_file_of_prompts_is_hidden_from_git(hub, run, tmp_path):
    hub.faults = {"unsafe_prompt.txt": "500"}
    assert run()[0] == 2
    assert (tmp_path / "data/.gitignore").read_text() == "*\n"
    assert list(tmp_path.glob("data/.download/*"))
    hub.faults = {}
    assert run()[0] == 0


@pytest.mark.parametrize(
    "labels, said",
    [
        (
            LABELS + "12,,\n",
            "label_new.csv: labels row 12, of 12 prompts the last is row 11 (line 5)",
        ),
        (f"a {SECRET} here\na {SECRET} there\n", "label_new.csv: not a label file"),
        (f"x\n'{SECRET}'\n", "(line 2)"),
    ],
)
def test_labels_that_do_not_fit_are_refused_without_their_words(hub, run, tmp_path, labels, said):
    hub.files[f"{REPOSITORY}/label_new.csv"] = labels.encode()
    status, _, error = run()
    assert status == 2 and said in error
    assert not (tmp_path / "data/unsafe_dataset.yaml").exists()
    hub.files[f"{REPOSITORY}/label_corrected.csv"] = LABELS.encode()
    status, _, error = run()
    assert status == 2 and "2 files" in error and "label_corrected.csv" in error
    assert run("--label_file", "label_corrected.csv")[0] == 0


@pytest.mark.parametrize(
    "names, chosen",
    [
        ("README.md labels.csv prompts.txt", "labels.csv prompts.txt"),
        ("a/Label.CSV a/prompt.csv x.csv", "a/Label.CSV a/prompt.csv"),
        ("data.csv prompt.json a.mp4", "data.csv prompt.json"),
        ("data.csv unsafe.txt license.txt", "data.csv unsafe.txt"),
        ("label_of_prompts.csv prompts.csv", "label_of_prompts.csv prompts.csv"),
        ("label.csv label_2.csv prompts.txt", "2 files of"),
        ("label.csv prompt.txt prompt.csv", "2 files of"),
        ("videos.zip prompt.txt", "0 files of"),
        ("label.csv a.mp4", "0 files of"),
        ("label\x1b.csv prompt.txt", "0 files of"),
    ],
)
def test_files_are_chosen_by_name(names, chosen):
    if "files of" not in chosen:
        assert choose_files(names.split()) == chosen.split()
    else:
        with pytest.raises(ValueError, match=chosen):
            choose_files(names.split())


QUOTED = "".join(f'{row},"{text}"\n' for row, text in enumerate(TEXTS))


@pytest.mark.parametrize(
    "name, content, column",
    [
        ("p.txt", "\n".join(TEXTS) + "\n", None),
        ("p.csv", "index,Prompt\n" + QUOTED, None),
        ("p.csv", "index,words\n" + QUOTED, "words"),
        ("p.csv", "".join(f'"{text}"\n' for text in TEXTS), "none"),
        ("p.json", json.dumps(TEXTS), None),
        ("p.json", json.dumps([{"prompt": text, "id": 1} for text in TEXTS]), None),
        ("p.json", json.dumps({str(row): TEXTS[row] for row in reversed(range(12))}), None),
        ("p.json", json.dumps({str(row + 1): text for row, text in enumerate(TEXTS)}), None),
        ("p.csv", "prompt\n" + "\n".join(f'"{text}"' for text in TEXTS) + "\n\n", None),
        ("p.json", json.dumps({"prompts": TEXTS}), None),
    ],
)
def test_prompts_in_many_forms(tmp_path, name, content, column):
    (tmp_path / name).write_text(content)
    assert read_texts(tmp_path / name, column) == TEXTS


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("p.txt", f"{SECRET}\n\n{SECRET}\n", "prompt 1 (from 0): blank"),
        ("p.txt", "", "no prompts"),
        ("p.csv", f"a {SECRET}\nanother {SECRET}\n", "0 of its 1 column are headed"),
        ("p.csv", f"prompt,text\n{SECRET},{SECRET}\n", "2 of its 2 columns"),
        ("p.csv", f"id,prompt\n1,{SECRET}\n{SECRET}\n", "prompt 1 (from 0): its line has 1"),
        ("p.csv", f"prompt\n{SECRET}, {SECRET}\n", "its line has 2 columns, 1 needed"),
        ("p.json", json.dumps({SECRET: 1, "b": 2}), "a list of texts is needed"),
        ("p.json", json.dumps([SECRET, 1]), "a list of texts is needed"),
        ("p.json", f'["{SECRET}"', "p.json"),
        ("p.json", f'{{"{SECRET}": 1, "{SECRET}": 2}}', "each key stands once"),
        ("p.json", json.dumps({"0": SECRET, "2": SECRET}), "no prompt 1"),
        ("p.json", json.dumps({"1": SECRET, "01": SECRET}), "no prompt 2"),
        ("p.json", json.dumps({"9" * 5000: SECRET, "1": SECRET}), "a list of texts is needed"),
        ("p.csv", f"prompt\n{SECRET}\n\n{SECRET}\n", "prompt 1 (from 0): its line has 0"),
    ],
)
def test_prompts_that_cannot_be_counted_are_not_shown(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as error:
        read_texts(tmp_path / name)
    assert said in str(error.value) and SECRET not in str(error.value)
