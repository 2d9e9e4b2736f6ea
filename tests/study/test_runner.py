"""Tasks, their notes and the runner: each task is a line of Python here."""

import json
import time
from dataclasses import replace

import pytest

from lvd.errors import InputError
from lvd_study.one_at_a_time import one_at_a_time
from lvd_study.runner import Runner, names_gpu, on_gpu
from lvd_study.tasks import Done, Ledger, Task


@pytest.fixture
def make(tmp_path):
    """Make a Task that appends its name to {tmp_path}/ran and writes {tmp_path}/{name}."""

    def make_task(name, code="", needs=(), **settings):
        says = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')"
        writes = f"open({str(tmp_path / name)!r}, 'w').write('1')"
        text = f"{says}; {writes}; {code or 'pass'}"
        return Task(name, ("-c", text), needs, makes=tmp_path / name, **settings)

    return make_task


@pytest.fixture
def runner(tmp_path):
    return Runner(Ledger(tmp_path / "done"), tmp_path / "logs", jobs=2)


def ran(folder):
    """The names of the tasks that have run, in order."""
    path = folder / "ran"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def test_each_task_once_and_after_what_it_needs(tmp_path, runner, make):
    first = make("first")
    tasks = [make("third", needs=(make("second", needs=(first,)), first)), make("other"), first]
    assert runner.run(tasks) == 4
    names = ran(tmp_path)
    assert sorted(names) == ["first", "other", "second", "third"]
    assert names.index("first") < names.index("second") < names.index("third")
    assert runner.run(tasks) == 0 and ran(tmp_path) == []


def test_tasks_run_side_by_side(tmp_path, make):
    wait = "import time; time.sleep(0.6)"
    runner = Runner(Ledger(tmp_path / "done"), tmp_path / "logs", jobs=4)
    began = time.monotonic()
    runner.run([make(name, wait) for name in "abcd"])
    assert time.monotonic() - began < 4 * 0.6


@pytest.mark.parametrize(
    "code, why",
    [
        ("import sys; print('error: no such thing'); sys.exit(2)", "no such thing"),
        ("raise SystemExit(3)", "it said nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    ],
)
def test_a_task_that_fails(tmp_path, runner, make, code, why):
    failing = make("failing", code)
    after = make("after", needs=(failing,))
    slow = make("slow", "import time; time.sleep(1)")
    with pytest.raises(InputError) as error:
        runner.run([after, slow])
    assert str(error.value) == f"failing: {why} (all it said: {tmp_path / 'logs/failing.log'})"
    assert "after" not in ran(tmp_path)
    assert [task.name for task in runner.missing([after, slow])] == ["failing", "after"]


def test_an_answer_is_no_failure(tmp_path, runner, make):
    says = (
        "import os; os.unlink({!r}); print('error: --max_cost 0.1: too small'); raise SystemExit(2)"
    )
    code = says.format(str(tmp_path / "rule"))
    task = make("rule", code, may_refuse=True, refuses_with=("--max_cost",))
    runner.run([task])
    assert runner.ledger.find(task).refused == "--max_cost 0.1: too small"
    other = make("folder", "print('error: no such folder'); raise SystemExit(2)")
    other = replace(other, may_refuse=True, refuses_with=("--max_cost",))
    with pytest.raises(InputError, match="folder: no such folder"):
        runner.run([other])


def test_what_was_chosen_before_is_no_answer(tmp_path, runner, make):
    (tmp_path / "rule").write_text("an old one")
    code = "print('error: --max_cost'); raise SystemExit(2)"
    task = Task("rule", ("-c", code), may_refuse=True, makes=tmp_path / "rule")
    runner.run([task])
    assert not (tmp_path / "rule").exists()


def test_what_is_gone_is_made_again_and_all_that_needs_it(tmp_path, runner, make):
    first = make("first")
    second = make("second", needs=(first,))
    other = make("other")
    runner.run([second, other])
    ran(tmp_path)
    (tmp_path / "first").unlink()
    assert runner.run([second, other]) == 2
    assert ran(tmp_path) == ["first", "second"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 1}', "\x00", '{"seconds": "x"}'])
def test_a_damaged_note_counts_as_none(tmp_path, runner, make, text):
    task = make("task")
    runner.run([task])
    path = tmp_path / "done" / "task.json"
    path.write_text(text)
    assert runner.missing([task]) == [task]


def test_notes_of_other_commands_files_and_devices(tmp_path):
    settings = tmp_path / "train.yaml"
    settings.write_text("epoch: 1")

    def ledger():
        return Ledger(tmp_path / "done", [settings])

    task = Task("train", ("train_mae.py", "--config", settings, "--gpu_num", 0))
    ledger().note(task, ledger().find(task) or Done(1.0))
    assert ledger().find(task)
    elsewhere = replace(task, command=(*task.command[:-1], -1))
    assert ledger().find(elsewhere)  # the device changes no result
    assert not ledger().find(replace(task, command=(*task.command, "--seed", 1)))
    settings.write_text("epoch: 2")
    assert not ledger().find(task)
    settings.write_text("epoch: 1")
    assert ledger().find(task)
    path = tmp_path / "done" / "train.json"
    entry = json.loads(path.read_text())
    del entry["inputs"]  # as older versions wrote it
    path.write_text(json.dumps(entry))
    assert ledger().find(task)


def test_notes_of_other_recordings(tmp_path):
    """Recordings from outside are no words of a command: the YAML that names them is."""
    config, recording = tmp_path / "build_x0.yaml", tmp_path / "pred_x0.pth"
    config.write_text("")
    recording.write_bytes(b"1")

    def ledger():
        return Ledger(tmp_path / "done", [config], [recording], config)

    task, other = Task("votes", ("--config", config)), Task("other", ("--seed", 1))
    for each in (task, other):
        ledger().note(each, Done(1.0))
    assert ledger().find(task) and ledger().find(other)
    recording.write_bytes(b"2")
    assert not ledger().find(task) and ledger().find(other)


@pytest.mark.parametrize("names", [("a b", "a b"), ("a b", "a_b")])
def test_two_tasks_of_one_name(runner, names):
    tasks = [Task(name, ("-c", f"print({place})")) for place, name in enumerate(names)]
    with pytest.raises(InputError, match="two different tasks are called a.b"):
        runner.run(tasks)


def test_gpus(tmp_path):
    words = ["embed_model.py", "--gpu_num", "0", "--seed", "0"]
    assert names_gpu(words) and not names_gpu(["a.py", "--gpu_num", "-1"]) and not names_gpu(["b"])
    assert on_gpu(words, 3) == ["embed_model.py", "--gpu_num", "3", "--seed", "0"]
    assert on_gpu(words, None) == words
    code = f"import sys, time; open({str(tmp_path)!r} + '/' + sys.argv[2], 'a').write('1')"
    tasks = [Task(f"t{k}", ("-c", f"{code}; time.sleep(0.5)", "--gpu_num", 0)) for k in range(4)]
    Runner(Ledger(tmp_path / "done"), tmp_path / "logs", 2, gpus=(5, 7)).run(tasks)
    assert [(tmp_path / gpu).read_text() for gpu in "57"] == ["11", "11"]


def test_one_study_at_a_time(tmp_path):
    with one_at_a_time(tmp_path / "study"):
        with pytest.raises(InputError, match="another reproduce_tables.py works here"):
            with one_at_a_time(tmp_path / "study"):
                pass
    with one_at_a_time(tmp_path / "study"):
        pass
