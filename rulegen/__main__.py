"""`python -m rulegen` is `rulegen`."""

from rulegen.cli.main import main

if __name__ == "__main__":
    main()
