"""What the processes of a launch tell each other: who speaks, and what must be alike."""

import pytest

from lvd.errors import InputError
from lvd.utils import exchange
from lvd.utils.exchange import code_sha256, need_no_failure, need_same
from tests.worlds.teams import together


def told(raised):
    """{rank: words} of those who speak; the others end in silence."""
    assert all(isinstance(error, (InputError, SystemExit)) for error in raised), raised
    return {rank: str(e) for rank, e in enumerate(raised) if isinstance(e, InputError)}


def failing(*ranks, error=InputError):
    def work(team):
        need_no_failure(team, error("x.yaml: bad") if team.rank in ranks else None)

    return together(work, machines=3, processes=2)


def test_nobody_failed():
    assert not any(failing())


def test_each_machine_has_one_line():
    """The failed processes of a machine speak for it, else its first one."""
    host = exchange.platform.node()
    assert told(failing(3)) == {
        0: f"process 3 on {host}: x.yaml: bad",
        3: "x.yaml: bad",
        4: f"process 3 on {host}: x.yaml: bad",
    }
    assert told(failing(*range(6))) == dict.fromkeys((0, 2, 4), "x.yaml: bad")


def test_a_full_disk_and_a_bug_stay_what_they_are():
    raised = failing(2, error=lambda words: OSError(28, "No space left on device", "/d/x"))
    assert isinstance(raised[2], OSError) and "/d/x: no space left" in str(raised[0])
    raised = failing(2, 3, error=ZeroDivisionError)
    assert [type(error) for error in raised[2:4]] == [ZeroDivisionError] * 2


@pytest.mark.parametrize(
    "main, other, words",
    [
        ({"steps": 4, "a": 1}, {"steps": 5, "a": 1}, "steps is 5, in process 0 4; all machines"),
        ({"prompts": "a" * 64}, {"prompts": "b" * 64}, "prompts is not the same as in process 0"),
        ({"unet": {"x": [1]}}, {"unet": {"x": [2]}}, "unet.x is [2], in process 0 [1]"),
        ({}, {"guard": {"eta": 5}}, "guard is {'eta': 5}, in process 0 None"),
    ],
)
def test_facts_must_be_the_same(main, other, words):
    raised = together(lambda team: need_same(team, other if team.rank == 3 else main), 2, 2)
    assert sorted(told(raised)) == [0, 2]
    assert all(line.startswith("process 3 on ") and words in line for line in told(raised).values())
    assert not any(together(lambda team: need_same(team, main)))


def test_the_code_is_known_by_its_files(monkeypatch, tmp_path):
    (tmp_path / "lvd").mkdir()
    (tmp_path / "lvd" / "a.py").write_text("1")
    monkeypatch.setattr(exchange, "ROOT", tmp_path)
    before = code_sha256()
    (tmp_path / "lvd" / "a.txt").write_text("no code")
    assert code_sha256() == before
    (tmp_path / "lvd" / "a.py").write_text("2")
    assert code_sha256() != before
