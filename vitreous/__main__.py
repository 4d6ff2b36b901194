"""`python -m vitreous`: the command line."""

from vitreous.cli.app import main

if __name__ == "__main__":
    main()
