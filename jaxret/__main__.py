"""`python -m jaxret`: the command."""

from jaxret.cli.main import program

program()
