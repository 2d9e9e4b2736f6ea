"""A rule in a sampling of other steps than the detectors were trained on.

A rule is stated in trained steps: its eta or horizon counts the steps of the sampling that the
detectors learned from. In another sampling of the same model each step is judged by the trained
step that is as noisy (lvd.x0.step_map), and the rule looks at as wide a stretch of trained steps.
"""

from lvd.errors import plural
from lvd.rules.vote import VoteRule
from lvd.x0.step_map import looks_of


def carry(rule, trained_steps):
    """Return the rule for a sampling of other steps.

    Args:
        rule: Rule, stated in trained steps.
        trained_steps: [S] numbers of the trained steps that judge the steps of the sampling; None:
            its steps are the trained ones.

    Returns:
        Rule, whose horizon counts steps of this sampling.
    """
    if trained_steps is None:
        return rule
    looks = looks_of(trained_steps, rule.horizon)
    return rule if looks == rule.horizon else rule.over(looks)


def carried_text(rule, trained_steps):
    """Say what a rule looks at in a sampling of other steps.

    Args:
        rule, trained_steps: see `carry`.

    Returns:
        Such as "eta 20 of the trained steps is 10 of these 25 steps"; "" where the steps of the
        sampling are the trained ones.
    """
    if trained_steps is None:
        return ""
    name = "eta" if isinstance(rule, VoteRule) else "horizon"
    looks = carry(rule, trained_steps).horizon
    return (
        f"{name} {rule.horizon} of the trained steps is {looks} of these "
        f"{plural(len(trained_steps), 'step')}"
    )


def own_steps_text(trained_steps):
    """Say what the numbers of steps in a table count: "" where they are the trained steps."""
    if trained_steps is None:
        return ""
    return (
        f"steps, eta and horizon count the {plural(len(trained_steps), 'step')} of these videos, "
        f"which the trained steps {trained_steps_text(trained_steps)} judged"
    )


def trained_steps_text(trained_steps):
    """Name trained steps for a message or a summary: "0, 2, 4, ..., 48"."""
    shown = [str(step) for step in trained_steps]
    if len(shown) > 6:
        shown = [*shown[:3], "...", shown[-1]]
    return ", ".join(shown)
