"""`python -m milco` is `milco`."""

from milco.tools.command import main

main()
