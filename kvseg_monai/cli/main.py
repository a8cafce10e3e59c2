"""``kvseg``, and ``python -m kvseg_monai``: the commands of the table under one name."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click

from kvseg_monai._version import __version__
from kvseg_monai.cli.commands import COMMANDS, GROUPS, Command
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.utils.nearest import did_you_mean
from kvseg_monai.utils.program import called


class _Leaf(click.Command):
    """A command that hands every word after its name on, ``--help`` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return args


class _Group(click.Group):
    """Commands in the order of the table; an unknown one is answered with the nearest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str, click.Command, list[str]]:
        name = args[0].replace("-", "_")
        if name not in self.commands:
            near = did_you_mean(name, self.commands, form=f"{ctx.command_path} {{}}")
            raise InputError(
                f"{ctx.command_path} has no command {args[0]!r}; {near or f'{ctx.command_path} --help lists them'}"
            )
        return name, self.commands[name], args[1:]


def make_group(commands: Mapping[str, Command] = COMMANDS, groups: Mapping[str, str] = GROUPS) -> click.Group:
    """Return the group of a table; invoked, it returns what is to be called, so that click is out of the work's way."""
    top = _Group("kvseg", help="Key-Value attention for MRI segmentation. Each command has a --help.")
    click.version_option(__version__)(top)
    for name, command in commands.items():
        group, _, last = name.rpartition(" ")
        if group and group not in top.commands:
            top.add_command(_Group(group, help=groups[group]))
        parent = top.commands[group] if group else top
        work = partial(_run, f"kvseg {name}", command)
        parent.add_command(_Leaf(last, help=command.help, callback=partial(_handed_on, work)))  # type: ignore[attr-defined]  # a click group
    return top


def _handed_on(work: Callable[..., Any]) -> Callable[[], int | None]:
    return partial(work, click.get_current_context().args)


def _run(name: str, command: Command, words: Sequence[str]) -> int | None:
    with called(name):
        return command.load()(words)


def run(arguments: Sequence[str]) -> int | None:
    """Run a command and return its exit code.

    Raises:
        InputError: an unknown command, or whatever is wrong for the command.
    """
    try:
        chosen = make_group().main(list(arguments), prog_name="kvseg", standalone_mode=False)
    except click.ClickException as error:
        message = error.format_message().removesuffix(".")
        raise InputError(f"{message}; kvseg --help lists the commands") from error
    return chosen() if callable(chosen) else chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code; see :func:`kvseg_monai.errors.run_command`."""
    run_command(partial(run, sys.argv[1:] if arguments is None else arguments))
