"""`python -m kit`, where the `kit` command is not on the path."""

from kit.cli import main

main()
