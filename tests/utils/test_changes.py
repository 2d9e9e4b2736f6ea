"""What differs between two states is told in the user's words: no keys of hashes, no digests."""

import pytest

from lvd.errors import InputError
from lvd.utils.changes import SENTENCES, what_changed
from lvd.utils.config import claim_output, need_same_training

ONE, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize("key", [key for key in SENTENCES if "." not in key])
def test_hashes_are_told_in_words(tmp_path, key):
    claim_output(tmp_path, {key: ONE})
    with pytest.raises(InputError) as folder:
        claim_output(tmp_path, {key: OTHER})
    with pytest.raises(InputError) as training:
        need_same_training("a.pth", {"dataset": {key: ONE}}, {"dataset": {key: OTHER}})
    for error in (folder, training):
        said = str(error.value).replace(str(tmp_path), "out")
        assert what_changed(key, ONE, OTHER) in said and len(said) < 250
        assert "aaa" not in said and "bbb" not in said and "_sha256" not in said
        assert "delete" in said


def test_paths_with_a_fingerprint():
    there, now = (f"ckpts/unet.pth ({digit * 16})" for digit in "ab")
    said = what_changed("dreambooth_path", there, now)
    assert said == "the files of dreambooth_path (ckpts/unet.pth) changed"
    assert what_changed("dreambooth_path", there, f"x ({'b' * 16})") is None
    assert what_changed("guard", None, {"eta": 5}) == "a guard came in (--guard)"


def test_settings_say_themselves_what_they_are(tmp_path):
    claim_output(tmp_path, {"seed": 1})
    with pytest.raises(InputError, match="was made with seed=1, now it is 2"):
        claim_output(tmp_path, {"seed": 2})
