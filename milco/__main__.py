from milco.cli import main

main()
