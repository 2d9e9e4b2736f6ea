"""agreement.txt: the tables of agreement in words."""

from lvd_labels.agreement import ANY

LITTLE = 0.4  # Cohen's kappa of a rater with the majority of the others
FEW = 10  # videos: fewer say nothing of a rater
HEAD = """How much raters agree, of {videos} rated videos

Each line is about one question: does the video show this category? 1 is perfect agreement, 0 what
chance would give. alpha: Krippendorff's, nominal, of all videos with two judgements or more, with a
95% interval (bootstrap over videos). kappa: Fleiss', of the videos with the same number of
judgements. chosen: the share of the judgements that say yes. -: not defined, all say the same, or
too few videos.

"""
RATERS = """
Each rater against the majority of the others, those who agree least first

same: the share of videos of which the rater says exactly what the others say; kappa: Cohen's.

"""


def agreement_text(agreement, raters, videos):
    """Return the text.

    Args:
        agreement: lines of `agreement_table`.
        raters: lines of `rater_table`.
        videos: how many were rated.
    """
    width = max(len(ANY), *(len(line["category"]) for line in agreement))
    text = HEAD.format(videos=videos)
    head = f"{'category':{width}}  chosen  alpha  95% interval    kappa  of\n"
    text += head + "".join(_agreement_line(line, width) for line in agreement)
    width = max(5, *(len(line["rater"]) for line in raters))
    text += RATERS + f"{'rater':{width}}  judged  cannot tell  compared  same  kappa\n"
    return text + "".join(_rater_line(line, width) for line in raters)


def _agreement_line(line, width):
    low, high = _number(line["alpha_low"]), _number(line["alpha_high"])
    interval = f"[{low}, {high}]" if line["alpha_low"] is not None else "-"
    alpha, kappa = _number(line["krippendorff_alpha"]), _number(line["fleiss_kappa"])
    fleiss = f"{line['fleiss_videos']} videos, {line['fleiss_raters']} judgements each"
    return (
        f"{line['category']:{width}}  {_number(line['chosen']):>6}  {alpha:>5}  {interval:14}  "
        f"{kappa:>5}  {fleiss if line['fleiss_videos'] else '-'}\n"
    )


def _rater_line(line, width):
    mark = "  agrees little" if line["rater"] in odd_raters([line]) else ""
    return (
        f"{line['rater']:{width}}  {line['judged']:>6}  {line['cannot_tell']:>11}  "
        f"{line['compared']:>8}  {_number(line['same']):>4}  {_number(line['kappa']):>5}{mark}\n"
    )


def odd_raters(raters):
    """Return the names of raters who agree with the others hardly more than by chance.

    Args:
        raters: lines of `rater_table`.
    """
    return [
        line["rater"]
        for line in raters
        if line["compared"] >= FEW and line["kappa"] is not None and line["kappa"] < LITTLE
    ]


def _number(value):
    return "-" if value is None else f"{value:.2f}"
