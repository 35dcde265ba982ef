"""`python -m apps.cli`: the same as the console script."""

from apps.cli.main import main

main()
