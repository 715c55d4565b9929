"""`python -m costbank_cli` is `costbank`."""

from costbank_cli.main import main

main()
