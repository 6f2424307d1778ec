import pytest

from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command


@pytest.fixture
def parser():
    parser = Parser(prog="python -m tool", description="Does\n  this.")
    parser.add_argument("--samples", type=int, required=True)
    return parser


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--samples=x"], "argument --samples: invalid int value: 'x'"),
        (["--samples=1", "--more"], "unrecognized arguments: --more"),
        # Flags are not abbreviated: another of the same beginning may come.
        (["--sam=1"], "the following arguments are required: --samples"),
    ],
)
def test_a_mistake_is_an_error_with_one_sentence(parser, flags, message):
    with pytest.raises(UsageError) as error:
        parser.parse_args(flags)
    assert str(error.value) == message


def test_the_description_keeps_its_lines(parser):
    assert "Does\n  this." in parser.format_help()


def test_what_was_done_is_told(capsys):
    assert run_command(lambda: "done") == 0
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("error", [UsageError("no such arm"), FileNotFoundError("no such arm")])
def test_what_cannot_be_done_is_told_in_one_sentence(capsys, error):
    def command():
        raise error

    assert run_command(command, name="draw") == 2
    assert capsys.readouterr() == ("", "draw: no such arm\n")


def test_other_errors_are_the_programs_own():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: str(1 / 0))
