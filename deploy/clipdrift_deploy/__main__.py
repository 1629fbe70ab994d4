"""`python -m clipdrift_deploy` is the `clipdrift` command, for processes that must not depend on PATH."""

from clipdrift_deploy.cli import main

if __name__ == "__main__":
    main()
