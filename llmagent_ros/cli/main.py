"""llmagent: the one command."""


def main() -> int:
    return 0
