"""What a label file means, by example: so that rows that were counted from 1 are seen."""

from lvd.errors import plural, shorten


def example(labels, group, prompts):
    """Return a category's number of videos and the prompt of the first one, for a summary.

    Args:
        labels: Labels.
        group: of the category, from 1.
        prompts: {row: text}; a row may lack one.

    Returns:
        '12 videos (violent), such as row 3 "a fight in a bar"'.
    """
    column = labels.columns[group - 1]
    row = column[0]
    count = plural(len(column), "video")
    text = f"{count} ({labels.categories[group - 1]})"
    if prompts.get(row) is None:
        return text
    shown = shorten(prompts[row])[1:-1]
    return f'{text}, such as row {row} "{shown}"'


def counted_from_1(labels, rows):
    """Whether a label file that fits a recording looks as if its rows were counted from 1.

    So it looks where all rows are labelled, but not the first one.

    Args:
        labels: Labels.
        rows: how many rows the recording has.
    """
    return rows > 2 and labels.rows() == list(range(1, rows))
