"""What a table module hands out, and the pages that are written of it."""

from dataclasses import dataclass, field

from lvd.utils.files import save_text
from lvd.utils.plots import drawn

INDEX = "README.md"
OTHERS = (
    "Do not compare these with the pages above, and read of them without study.yaml, which is that "
    "of the last run. `--tables {}` makes them again under its settings. What differs:"
)


@dataclass(frozen=True)
class Figure:
    """A picture beside the tables.

    Attributes:
        name: of its file, such as "b_heat_map.png".
        says: what is seen, for readers who see no picture.
        draw: function of (content, path) that writes it.
        content: what it draws.
    """

    name: str
    says: str
    draw: object
    content: object


@dataclass(frozen=True)
class Section:
    """One page of the study.

    Attributes:
        letter: "a" to "g".
        title: its heading.
        answer: what comes out, in one to three sentences with figures, made of the tables.
        how: how it was measured, so that another could do it again.
        tables: [Table].
        figures: [Figure].
        caveat: of the tiny world: what its answer does not say about real models; "" for none.
    """

    letter: str
    title: str
    answer: str
    how: str
    tables: list
    figures: list = field(default_factory=list)
    caveat: str = ""

    @property
    def file(self):
        """The name of its page."""
        return f"{self.letter}.md"

    def save(self, folder, facts):
        """Write the page, its CSV files and figures.

        Args:
            folder: where to.
            facts: {name: text} of what the figures were taken on.

        Returns:
            The paths written.
        """
        written = [table.save(folder) for table in self.tables]
        pictures = []
        for figure in self.figures:
            if drawn(figure.draw, figure.content, folder / figure.name):
                written.append(folder / figure.name)
                pictures.append(f"![{figure.says}]({figure.name})")
        parts = [f"# {self.letter}. {self.title}", self.answer]
        if self.caveat:
            parts.append(f"> What the tiny world does not say: {self.caveat}")
        parts += pictures
        parts += [table.markdown() for table in self.tables]
        parts += ["## How it was measured", self.how, facts_text(facts)]
        path = folder / self.file
        save_text("\n\n".join(part for part in parts if part) + "\n", path)
        return [path, *written]


def write_index(folder, titles, command, facts, others=None):
    """Write the README.md that leads to the pages that are there.

    Args:
        folder: of the pages.
        titles: {letter: title} of the pages.
        command: the command line that made them.
        facts: {name: text}.
        others: {letter: what differs} of the pages that were made under other settings.

    Returns:
        Its path.
    """
    others = others or {}
    lines = ["# The study", "", f"Made by `{command}`.", ""]
    links = {letter: f"- [{letter}. {title}]({letter}.md)" for letter, title in titles.items()}
    lines += [link for letter, link in links.items() if letter not in others]
    if old := [letter for letter in links if letter in others]:
        lines += ["", "## Made under other settings", "", OTHERS.format(",".join(old)), ""]
        lines += [f"{links[letter]}: {others[letter]}" for letter in old]
    lines += ["", "Of the last run; each page ends with its own:", "", facts_text(facts), ""]
    save_text("\n".join(lines), folder / INDEX)
    return folder / INDEX


def facts_text(facts):
    """Return facts as a Markdown list."""
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())
