"""``umt doctor``."""


def doctor() -> None:
    """Say what this machine has, and what each thing means for speed."""
    from umtlib.doctor import examine

    for finding in examine():
        print(f"{finding.name:<14}{finding.value}")
        if finding.meaning:
            print(f"{'':<14}  {finding.meaning}")
