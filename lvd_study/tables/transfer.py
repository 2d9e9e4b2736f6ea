"""f. Do detectors of one model serve another, and does the way work from images?"""

from argparse import Namespace
from dataclasses import dataclass
from itertools import product

import numpy as np

from lvd.data.config import read_data_config
from lvd.data.split import load_split
from lvd.x0.file import open_x0_file
from lvd_study import image_to_video
from lvd_study.changes import after_steps, largest_scores
from lvd_study.intervals import area
from lvd_study.judged import LAMBDA, etas, votes_over_seeds
from lvd_study.pages import Figure, Section
from lvd_study.settings import BASE
from lvd_study.table import Table
from lvd_study.transfer_figure import draw

TITLE = "Transfer between models, and from images"
KIND = "shared"
LEFT_OUT = {
    "weights": "study.yaml names no other weights, so nothing is known of transfer between models.",
    "prompts": "The recordings came without their prompts, so no other weights could sample these: "
    "nothing is known of transfer between models.",
}
CAVEAT = (
    "its models are near relatives: each differs from the base in one part of the weights, and all "
    "show the same few objects. Models of different makers are further apart."
)


@dataclass(frozen=True)
class Plan:
    """What the table needs.

    Attributes:
        videos: {model: Videos}, the base first; {} where models are left out.
        votes: {(trained on, asked about): [Votes]}, one a seed.
        from_images: PathTest.
        why_not: key of LEFT_OUT; "" where there are other models.
    """

    videos: dict
    votes: dict
    from_images: object
    why_not: str = ""

    @property
    def tasks(self):
        """The Tasks of all of it."""
        asked = [one.task for votes in self.votes.values() for one in votes]
        return [*asked, self.from_images.task]


def plan(study):
    """Return what the table needs of a Study."""
    from_images = image_to_video.path_test(study)
    why_not = "weights" if not study.settings.weights else "prompts" if not study.prompts else ""
    if why_not:
        return Plan({}, {}, from_images, why_not)
    data, videos = {BASE: None}, {BASE: study.held_out}
    for name, changes in study.settings.weights.items():
        data[name], videos[name] = study.other_model(name, changes)
    votes = {}
    for trained_on, asked_about in product(videos, videos):
        seeds = study.settings.seeds
        if trained_on != BASE:
            seeds = seeds[: study.settings.transfer_seeds]
        trained = [study.trained(KIND, seed, data[trained_on]) for seed in seeds]
        of_pair = [study.votes(each, videos[asked_about]) for each in trained]
        votes[trained_on, asked_about] = of_pair
    return Plan(videos, votes, from_images)


@dataclass(frozen=True)
class Pair:
    """What detectors of one model make of another's videos.

    Attributes:
        areas: {eta: Estimate of the AUROC of the largest probability after eta steps}.
        judged: {eta: OverSeeds of the vote (LAMBDA, eta)}.
    """

    areas: dict
    judged: dict


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    from_images = plan.from_images.result()
    from_images_text = image_to_video.text(from_images)
    if plan.why_not:
        return Section(
            letter="f",
            title=TITLE,
            answer=f"{LEFT_OUT[plan.why_not]} {from_images_text}",
            how=image_to_video.HOW,
            tables=[image_to_video.table(from_images)],
        )
    pairs = {models: _pair([one.recording() for one in of]) for models, of in plan.votes.items()}
    models = list(plan.videos)
    distances = {name: _distance(study, plan, name) for name in models}
    early, late = _ends(pairs)
    figure = {"models": [shown(name) for name in models], "panels": _panels(pairs, models)}
    return Section(
        letter="f",
        title=TITLE,
        answer=" ".join([*_answer(pairs, models), *_same(distances), from_images_text]),
        how=f"{_how(study)} {image_to_video.HOW}",
        tables=[
            _models_table(study, distances),
            *(_matrix(pairs, models, eta) for eta in dict.fromkeys((early, late))),
            _long_table(pairs),
            image_to_video.table(from_images),
        ],
        figures=[
            Figure(
                "f_transfer.png",
                "Four heat maps, detectors of each model by row, videos of each model by column: "
                "AUROC, accuracy at two points and cost",
                draw,
                figure,
            )
        ],
        caveat=CAVEAT if study.is_tiny else "",
    )


def shown(name):
    """Return the name of a model as tables show it."""
    return name.replace("_", " ")


def _pair(recordings):
    """The Pair of recordings, one a seed."""
    is_unsafe = recordings[0].videos.is_unsafe
    areas = {}
    for eta in etas(recordings):
        scores = largest_scores(recordings, eta)
        areas[eta] = area(scores[:, is_unsafe], scores[:, ~is_unsafe])
    return Pair(areas, {eta: votes_over_seeds(eta, recordings) for eta in etas(recordings)})


def _ends(pairs):
    """The first and the last eta that all pairs have."""
    known = list(next(iter(pairs.values())).judged)
    return known[0], known[-1]


def _accuracy(pairs, trained_on, asked_about, eta):
    return pairs[trained_on, asked_about].judged[eta].accuracy()


def _answer(pairs, models):
    """Sentences: how detectors do on other models' videos, and which pair loses most."""
    early, late = _ends(pairs)
    others = [pair for pair in product(models, models) if pair[0] != pair[1]]
    sentences = []
    for eta in dict.fromkeys((early, late)):
        own = [_accuracy(pairs, name, name, eta).mean for name in models]
        other = [_accuracy(pairs, *pair, eta).mean for pair in others]
        sentences.append(
            f"At ({LAMBDA}, {eta}) detectors judge {_range(own)} of the videos of their own model "
            f"as what they are, and {_range(other)} of those of another."
        )

    def loss(pair):
        return _accuracy(pairs, pair[1], pair[1], early).mean - _accuracy(pairs, *pair, early).mean

    trained_on, asked_about = worst = max(others, key=loss)
    if loss(worst) <= 0:
        return [*sentences, "None does worse on another model than that model's own."]
    sentences.append(
        f"Most is lost from {shown(trained_on)} to {shown(asked_about)}: an accuracy of "
        f"{_accuracy(pairs, *worst, early).text()} at ({LAMBDA}, {early}), where detectors of the "
        f"very model have {_accuracy(pairs, asked_about, asked_about, early).text()}."
    )
    return sentences


def _range(values):
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _same(distances):
    """A sentence that names the models whose videos are those of the base; [] where none are."""
    same = [shown(name) for name, distance in distances.items() if name != BASE and not distance]
    return [f"The videos of {' and '.join(same)} are those of the base."] if same else []


def _distance(study, plan, name):
    """How far predicted x0 of a model's unsafe held-out videos is from the base's, at the end.

    The root mean square of the difference, in standard deviations of the base's.
    """
    rows = load_split(study.eval_path).unsafe
    config = read_data_config(plan.videos[name].config, Namespace())
    own, base = (open_x0_file(path).tensor for path in (config.pred_x0, study.data.pred_x0))
    own, base = (np.stack([x0[row, -1].double().numpy() for row in rows]) for x0 in (own, base))
    return float(np.sqrt(np.mean((own - base) ** 2)) / base.std())


def _models_table(study, distances):
    rows = [[shown(BASE), "as its sampling YAML says", distances[BASE]]]
    for name, changes in study.settings.weights.items():
        texts = [f"{key}: {path}" if path else f"no {key}" for key, path in changes.items()]
        rows.append([shown(name), ", ".join(texts), distances[name]])
    return Table(
        "f_models",
        "The models.",
        "Distance: how far the finished latents of the unsafe held-out videos are from those that "
        "the base makes of the same prompts and noise (root mean square, in standard deviations).",
        ["model", "weights", "distance"],
        rows,
    )


def _matrix(pairs, models, eta):
    rows = [
        [shown(trained_on), *(_accuracy(pairs, trained_on, asked, eta) for asked in models)]
        for trained_on in models
    ]
    return Table(
        f"f_accuracy_{eta}",
        f"Accuracy at ({LAMBDA}, {eta}).",
        "Rows: the model whose videos the detectors were trained on. Columns: the model whose "
        "videos they were asked about.",
        ["trained on", *map(shown, models)],
        rows,
    )


def _long_table(pairs):
    early, late = _ends(pairs)
    columns = ["trained on", "asked about"]
    for eta in dict.fromkeys((early, late)):
        columns += [f"AUROC {after_steps(eta)}", f"accuracy ({LAMBDA}, {eta})"]
        columns += [f"TPR ({LAMBDA}, {eta})", f"TNR ({LAMBDA}, {eta})", f"cost ({LAMBDA}, {eta})"]
    rows = []
    for (trained_on, asked_about), pair in pairs.items():
        row = [shown(trained_on), shown(asked_about)]
        for eta in dict.fromkeys((early, late)):
            over = pair.judged[eta]
            row += [pair.areas[eta], over.accuracy(), over.recall(), over.specificity()]
            row.append(over.cost())
        rows.append([*row, over.seeds])
    return Table(
        "f_transfer",
        "All pairs.",
        "AUROC: of the largest raw probability over the categories after so many steps. TPR: the "
        "share of unsafe videos that are stopped; TNR: of normal ones that pass. Cost: the share "
        "of the steps that an unsafe video takes, on average; one that is missed counts in full.",
        [*columns, "seeds"],
        rows,
    )


def _panels(pairs, models):
    """[(title, values [trained on, asked about], whether more is better)] of the figure."""
    early, late = _ends(pairs)
    quantities = {
        f"AUROC {after_steps(early)}": lambda pair: pair.areas[early],
        f"accuracy, ({LAMBDA}, {early})": lambda pair: pair.judged[early].accuracy(),
        f"accuracy, ({LAMBDA}, {late})": lambda pair: pair.judged[late].accuracy(),
        f"cost, ({LAMBDA}, {early})": lambda pair: pair.judged[early].cost(),
    }
    return {
        title: np.array([[of(pairs[one, other]).mean for other in models] for one in models])
        for title, of in quantities.items()
    }


def _how(study):
    seeds = study.settings.transfer_seeds or len(study.settings.seeds)
    return (
        "All models sample the same prompts from the same noise, the same rows are held out, and "
        f"shared detectors are trained on each (the base's with {len(study.settings.seeds)} seeds, "
        f"others with {min(seeds, len(study.settings.seeds))}); thresholds come with the "
        "detectors. embed_model.py refuses recordings of another model than the detectors'; here "
        "--allow_other_eval lets them pass. A guard refuses other latents and another kind of x0, "
        "but it is not told the weights: which model detectors belong to is for people to know."
    )
