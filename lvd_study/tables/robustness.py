"""e. How does it do when something changes: words, noise, guidance, sampling, or a new category?"""

import re
from dataclasses import dataclass

from lvd.errors import plural
from lvd_study.changes import accuracy_difference, auroc_difference, changes_of, see
from lvd_study.intervals import area, share
from lvd_study.judged import BOUND, all_chosen, etas
from lvd_study.left_out import compare, left_out_of, normal_table, table_of, together
from lvd_study.names import RULES, called
from lvd_study.pages import Figure, Section
from lvd_study.robustness_figures import draw_changes, draw_left_out
from lvd_study.table import Table

TITLE = "Robustness: other words, noise, guidance and samplings, and a category never trained on"
HOW = (
    "By one shared detector of each seed. The held-out prompts are sampled again under each "
    "setting, from the same seeds unless it says other noise; other words are other prompts. "
    "Each step is judged by the trained step whose noise level is nearest, and a rule looks at as "
    "wide a stretch of trained steps, as in the guard. Rules were chosen on training videos as "
    "trained. Difference: to the videos as trained; paired over videos where the prompts are the "
    "same. Its interval joins the exact ones of the videos that became right and wrong (Newcombe); "
    "that of an AUROC is a bootstrap over seeds and videos."
)
HOW_LEFT_OUT = (
    "A category never trained on: for each one detectors were trained without it and without all "
    "videos that it has, also those of another category besides, so that nothing of it is seen; "
    "they were asked about its held-out videos of no other category, and about the normal ones. "
    "A rule that was chosen for other detectors does not hold for these: they are asked by the "
    f"paper's votes and by a fixed bound of {BOUND:g} on the calibrated probability."
)
CAVEAT = (
    "its prompts are made by a program, so other words are other names of the same effects and "
    "scenes; its categories are all effects laid over a clip, so one that was left out may look "
    "like another; and its small model may answer to guidance and schedulers as no large one does."
)


@dataclass(frozen=True)
class Plan:
    """What the table needs.

    Attributes:
        changes: [Change], the videos as trained first.
        chosen: of lvd_study.judged.all_chosen.
        left_out: [LeftOut], one a category.
    """

    changes: list
    chosen: dict
    left_out: list

    @property
    def tasks(self):
        """The Tasks of all of it."""
        made = [each.votes for each in (*self.changes, *self.left_out)]
        return [one.task for part in (*made, *self.chosen.values()) for one in part]


def plan(study):
    """Return what the table needs of a Study."""
    trained = [study.trained("shared", seed) for seed in study.settings.seeds]
    return Plan(changes_of(study, trained), all_chosen(study, trained), left_out_of(study))


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    refused = {each.name: why for each in plan.changes if (why := each.refused(study))}
    seen = [see(each, plan.chosen) for each in plan.changes if each.name not in refused]
    base = seen[0].recordings
    found = compare(plan.left_out, base) if plan.left_out else []
    tables = [_auroc_table(seen), *(_rule_table(seen, rule) for rule in seen[0].judged)]
    figures = [_figure_of_changes(seen)] if len(seen) > 1 else []
    answer, how = [_answer(seen)], [f"{HOW} As trained: {study.sampling}."]
    if refused:
        reasons = [f"{name} ({why.replace(f'{study.home}/', '')})" for name, why in refused.items()]
        how.append(f"Not served: {'; '.join(reasons)}.")
    if found:
        tables += [table_of(found), normal_table(found, base)]
        figures.append(_figure_of_left_out(found))
        answer.append(_answer_left_out(found))
        how.append(f"{HOW_LEFT_OUT} ({plural(len(plan.left_out[0].votes), 'seed')})")
    elif plan.left_out:
        how.append("No held-out video is of one category alone: none could be left out.")
    else:
        how.append("No category was left out of a training.")
    return Section(
        letter="e",
        title=TITLE,
        answer=" ".join(answer),
        how=" ".join(how),
        tables=tables,
        figures=figures,
        caveat=CAVEAT if study.is_tiny else "",
    )


def _auroc_table(seen):
    """The table of how well early scores tell unsafe from normal videos."""
    eta = etas(seen[0].recordings)[0]
    rows = []
    for each in seen:
        unsafe, normal = each.scores(eta)
        gap = auroc_difference(seen[0], each, eta) if each is not seen[0] else None
        rows.append([each.change.name, area(unsafe, normal), gap, *unsafe.shape, normal.shape[1]])
    return Table(
        "e_auroc",
        "How well early scores tell unsafe from normal videos.",
        "AUROC of the largest raw probability over the categories at the last of the first "
        f"{eta} trained steps (in other samplings: of as wide a stretch).",
        ["videos", "AUROC early", "difference", "seeds", "unsafe", "normal"],
        rows,
    )


def _rule_table(seen, rule):
    """The table of what one rule does under each change."""
    rows = []
    for each in seen:
        if rule not in each.judged:
            continue
        over = each.judged[rule]
        gap = accuracy_difference(seen[0], each, rule) if each is not seen[0] else None
        rows.append(
            [
                each.change.name,
                over.accuracy(),
                gap,
                over.recall(),
                over.specificity(),
                over.cost(),
                over.seeds,
            ]
        )
    return Table(
        "e_" + re.sub(r"\W+", "_", rule).strip("_"),
        f"By rule: {rule}.",
        "Cost: the share of the steps that an unsafe video takes, on average; one that is missed "
        "counts in full.",
        ["videos", "accuracy", "difference", "TPR", "TNR", "cost", "seeds"],
        rows,
    )


def _main_rules(seen):
    """The longest vote of the paper, and the first rule that was chosen, where one was."""
    votes = [rule for rule in seen[0].judged if rule not in RULES.values()]
    chosen = [rule for rule in seen[0].judged if rule in RULES.values()]
    return [votes[-1], *chosen[:1]]


def _answer(seen):
    """What changes do, in a sentence a rule."""
    said = []
    for rule in _main_rules(seen):
        base = seen[0].judged[rule].accuracy()
        text = f"{called(rule).capitalize()} is right on {base.text()} of the videos as trained"
        gaps = [(each.change.name, accuracy_difference(seen[0], each, rule)) for each in seen[1:]]
        if gaps:
            below = sum(gap.high < 0 for _, gap in gaps)
            name, worst = min(gaps, key=lambda pair: pair[1].mean)
            changed = f"{worst.mean:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}]"
            text += f"; {below} of {plural(len(gaps), 'change')} lower that by more than chance"
            text += f", the largest fall is {changed} ({name})" if worst.mean < 0 else ""
        said.append(f"{text}.")
    return " ".join(said)


def _main_rule_left_out(found):
    """The longest vote."""
    return [rule for rule in found[0].unseen if rule.startswith("(")][-1]


def _answer_left_out(found):
    """What detectors do about a category that they never saw, in a sentence."""
    rule, whole = _main_rule_left_out(found), together(found)
    unseen, seen = share(whole.unseen[rule]).text(), share(whole.seen[rule]).text()
    return (
        f"Of videos of a category that the detectors never saw, the vote {rule} stops {unseen}; of "
        f"the same videos detectors that saw all categories stop {seen}."
    )


def _figure_of_changes(seen):
    rules = _main_rules(seen)
    panels = {
        rule: [(each.change.name, each.judged[rule].accuracy()) for each in seen] for rule in rules
    }
    says = f"Accuracy of {' and of '.join(rules)} under each change, with 95% intervals"
    return Figure("e_changes.png", says, draw_changes, panels)


def _figure_of_left_out(found):
    rule = _main_rule_left_out(found)
    rows = [
        (each.name, share(each.unseen[rule]), share(each.seen[rule]))
        for each in [*found, together(found)]
    ]
    says = f"Share of each category's videos stopped at {rule} by detectors with and without it"
    return Figure("e_left_out.png", says, draw_left_out, rows)
