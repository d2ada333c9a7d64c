"""What a README wants of the page: its tables in Markdown, with the sentences that they need."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from perceptkit.report.adaptation_section import adaptation_section
from perceptkit.report.budget_section import budget_section
from perceptkit.report.chain_table import chain_table
from perceptkit.report.grid import markdown
from perceptkit.report.routing_section import routing_section
from perceptkit.report.run_folder import Run, read_run
from perceptkit.report.source_losses import source_losses
from perceptkit.report.tables import summary_table


def summary(paths: Sequence[Path]) -> str:
    """One table over runs, then of the first of them its budget, its losses by source, what it learned by picture and
    how it was adapted, if it did or was.

    Raises SpecError where a path is not a run folder.
    """
    first = read_run(paths[0])
    sections = (_budget(first), _sources(first), _routing(first), _adaptation(first), _chain(first))
    return "\n".join((summary_table(paths), *chain.from_iterable(sections)))


def _budget(run: Run) -> Iterator[str]:
    section = budget_section(run)
    if section is not None and section.found:
        yield _paragraphs("The budget", section.words)
        yield from map(markdown, section.found)


def _sources(run: Run) -> Iterator[str]:
    table = source_losses(run)
    if table is not None:
        yield _paragraphs("Losses by source")
        yield markdown(table)


def _routing(run: Run) -> Iterator[str]:
    section = routing_section(run, [run])
    if section is not None and section.rules is not None:
        yield _paragraphs("Which blocks run", section.static, *section.summary, section.verdict)
        yield markdown(section.rules)
        if section.alone is not None:
            yield markdown(section.alone)
        if section.left_out:
            yield f"{section.left_out}\n"


def _adaptation(run: Run) -> Iterator[str]:
    section = adaptation_section(run)
    if section is None:
        return
    yield _paragraphs("What was adapted", *section.summary)
    if section.new is not None and len(section.new.columns) > 1:  # else the first table has said it
        yield markdown(section.new)
    yield _paragraphs("The old domain", section.old_words)
    if section.old is not None:
        yield markdown(section.old)
    if section.stored is not None:
        yield markdown(section.stored)


def _chain(run: Run) -> Iterator[str]:
    table = chain_table(run.chain)
    if table is not None:
        yield _paragraphs(
            "What every stage did", "From the network that the run began with to the file it wrote."
        )
        yield markdown(table)


def _paragraphs(title: str, *sentences: str) -> str:
    return f"### {title}\n\n{' '.join(filter(None, sentences))}\n"
