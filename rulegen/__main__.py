"""`python -m rulegen` is `rulegen`."""

from rulegen.cli import main

if __name__ == "__main__":
    main()
