from pathlib import Path

from motet.cli.reference import reference


def test_the_page_of_the_command_line_is_that_of_the_commands() -> None:
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text("utf-8") == reference(), "run: python -m motet.cli.reference > docs/cli.md"


def test_every_command_stands_in_it_with_its_options() -> None:
    text = reference()
    for said in ("## motet fit", "## motet runs", "--tune", "--time-limit", "Exit codes:", "75"):
        assert said in text
