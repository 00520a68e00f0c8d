"""completion: a script for the shell that completes verbs, options and the ids of bots.

The scripts are static, so a Tab costs nothing but one `botctl list -o name` where an id is wanted,
and that one never starts a daemon.
"""

from __future__ import annotations

from botctl.options import Argument, Command
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.invocation import Invocation

SHELLS = ("bash", "zsh", "fish")


def completion(invocation: Invocation, *, shell: str) -> int:
    module = __import__(f"botctl.shells.{shell}", fromlist=["script"])
    invocation.out.write(module.script())
    return Exit.OK


COMMANDS = (
    Command(
        "completion",
        completion,
        "Print a script that teaches the shell to complete verbs, options and ids.",
        Argument("shell", choices=SHELLS, help="bash, zsh or fish."),
        examples=(
            ("source <(botctl completion bash)", "for this bash"),
            ("botctl completion fish | source", "for this fish"),
        ),
    ),
)
