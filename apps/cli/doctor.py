from apps.cli.options import Json, emit


def doctor(json: Json = False) -> None:
    """Tell what is installed, what is missing, and how to get it."""
    from apps.diagnosis import diagnose

    found = diagnose()
    if json:
        emit(found)
        return
    for name, value in found["machine"].items():
        print(f"{name:<14} {value}")
    print()
    for package, about in found["packages"].items():
        print(f"{package:<18} {about['version'] or 'missing':<12} {about['what']}")
    print()
    for verb, about in found["verbs"].items():
        if about["ready"]:
            print(f"edgewise {verb:<9} ready")
        else:
            print(f"edgewise {verb:<9} needs {', '.join(about['missing'])}: {about['install']}")
