"""The `jaxret` command."""
