"""The command that completes words in a shell: completion."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from .show import show_result

COMPLETE = "_NNC_COMPLETE"  # the variable with which a shell asks what a word may become
_WHERE = {
    "bash": 'eval "$(nnc completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(nnc completion zsh)"   # in ~/.zshrc',
    "fish": "nnc completion fish > ~/.config/fish/completions/nnc.fish",
}


@click.command(epilog="\b\n" + "\n".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and files."""
    text = answer(click.get_current_context().find_root().command, f"{shell}_source")
    show_result({"shell": shell, "script": text}, lambda: click.echo(text))


def answer(cli: click.Command, asked: str) -> str:
    """What a shell is told: of `bash_source` its script, of `bash_complete` what the word it is at may become, which is
    the name of a file where no command or option fits."""
    shell, _, what = asked.partition("_")
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no shell {shell!r} is known: {', '.join(_WHERE)}")

    class Completion(made):  # type: ignore[valid-type,misc]
        def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
            return super().get_completions(args, incomplete) or [CompletionItem(incomplete, type="file")]

    completion = Completion(cli, {}, "nnc", COMPLETE)
    text: str = completion.source() if what == "source" else completion.complete()
    return text
