"""`python -m costbank_cli` runs `costbank`."""

from costbank_cli.main import main

main()
