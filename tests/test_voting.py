"""The voting rule against brute force over Fractions, its early decision against the final one."""

import time
from fractions import Fraction
from itertools import product

import pytest

from lvd.errors import InputError
from lvd.voting import check_eta, decided, exact, step_votes, verdict, votes_needed

LAMBDAS = ["0", "0.1", "0.2", "0.3", "0.5", "0.55", "0.6", "0.7", "0.9", "1", "1.0"]


def test_verdict_is_the_inequality_of_the_paper():
    for votes in product((0, 1), repeat=6):
        for lambda_, eta in product(LAMBDAS, range(1, 7)):
            unsafe = Fraction(sum(votes[:eta])) >= Fraction(lambda_) * eta
            assert verdict(list(votes), float(lambda_), eta) == int(unsafe)
            assert verdict(list(votes), lambda_, eta) == int(unsafe)


def test_no_rounding_slip_for_any_decimal_lambda():
    for tenths, eta in product(range(101), range(1, 51)):
        needed = votes_needed(tenths / 100, eta)
        assert needed == -(-tenths * eta // 100), (tenths, eta)


def test_votes_needed_where_floats_slip():
    assert 0.14 * 50 > 7  # in binary floats: 7.000000000000001
    assert votes_needed(0.14, 50) == 7
    assert votes_needed(0.6, 20) == 12
    assert votes_needed(0, 5) == 0 and votes_needed(1, 5) == 5


def test_decided_never_contradicts_the_final_verdict_and_comes_as_early_as_it_can():
    eta = 5
    for lambda_ in LAMBDAS:
        for votes in product((0, 1), repeat=eta):
            final = {1: "unsafe", 0: "safe"}[verdict(list(votes), lambda_, eta)]
            for seen in range(eta + 1):
                ends = {
                    verdict(list(votes[:seen] + rest), lambda_, eta)
                    for rest in product((0, 1), repeat=eta - seen)
                }
                expected = final if len(ends) == 1 else None
                assert decided(votes[:seen], lambda_, eta) == expected


def test_decided_ignores_votes_after_eta():
    assert decided([0, 0, 1, 1, 1], 0.5, 2) == "safe"


def test_step_votes_are_the_or_over_categories():
    says = [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert step_votes(says) == [0, 1, 1, 0]


HUGE = [pytest.param(10**5000, id="an int of 5001 digits"), pytest.param("9" * 10**6, id="a text")]
UNENDING = ["1e-9999999", "1e9999999", "1E-99_999_999", "0." + "1" * 500, *HUGE]


@pytest.mark.parametrize("bad", [-0.1, 1.0001, "x", "nan", "inf", "1/0", "", None, *UNENDING])
def test_lambda_outside_its_range(bad):
    began = time.monotonic()
    with pytest.raises(InputError, match="^lambda_=") as error:
        exact(bad)
    assert time.monotonic() - began < 1 and len(str(error.value)) < 200


def test_lambda_of_many_digits_is_exact():
    assert exact("0." + "3" * 300) == Fraction(int("3" * 300), 10**300)
    assert exact("6e-1") == exact("3/5") == exact(0.6) == Fraction(3, 5)
    assert exact(5e-324) == Fraction(5, 10**324)


@pytest.mark.parametrize("bad", [0, -1, 51, 2.0, True, None, *HUGE])
def test_eta_outside_its_range(bad):
    with pytest.raises(InputError, match="^eta="):
        check_eta(bad, 50)
    with pytest.raises(InputError, match="^eta="):
        verdict([0] * 50, 0.6, bad)
